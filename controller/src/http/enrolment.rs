//! `POST /enrol/v1`: a device joins. Anyone may ask; the token in the body decides.

use std::sync::Arc;

use axum::{
    Extension, Json,
    extract::{State, rejection::JsonRejection},
};
use protocol::enrol::{EnrolRequest, Enrolled};

use super::{context::Context, guard::Peer, refusal::Refusal};
use crate::{
    enrol::{self, Answer, EnrolError},
    link::seal_keys,
};

/// Lets a device join.
pub async fn enrol(
    State(context): State<Arc<Context>>,
    Extension(peer): Extension<Peer>,
    request: Result<Json<EnrolRequest>, JsonRejection>,
) -> Result<Json<Enrolled>, Refusal> {
    let now = context.clock.now();
    if !context.enrolments.allows(peer.address.ip(), now) {
        return Err(Refusal::too_often());
    }
    let Json(request) = request?;
    let fleet = context.settings.fleet.clone();
    let answer = Answer {
        broker: context.broker.clone(),
        artifacts: format!("{}/artifacts", context.public_url),
        seal_key: seal_keys::announced(&context.store, &fleet, &context.signer).await?,
        controller_key: context.signer.public(),
        fleet,
    };
    let joined = enrol::enrol(&context.store, &context.authority, &request, answer, now).await;
    context.metrics.enrolment(joined.is_ok());
    match joined {
        Ok(enrolled) => {
            tracing::info!(device = enrolled.device.short(), name = request.name, "enrolled");
            context.news.notify_one();
            Ok(Json(enrolled))
        }
        Err(error) => {
            log_refused(&error, peer);
            Err(error.into())
        }
    }
}

fn log_refused(error: &EnrolError, peer: Peer) {
    tracing::warn!(from = %peer.address.ip(), "refused an enrolment: {error}");
}
