//! Who may ask.

use std::{net::SocketAddr, sync::Arc};

use axum::{
    extract::{Request, State},
    middleware::Next,
    response::{IntoResponse as _, Response},
};
use protocol::id::DeviceId;

use super::{context::Context, refusal::Refusal};

/// The other side of a connection, put into each of its requests by the listener.
#[derive(Clone, Copy, Debug)]
pub struct Peer {
    /// Where it is.
    pub address: SocketAddr,
    /// The device whose certificate it presented, if any; TLS has verified it.
    pub device: Option<DeviceId>,
}

/// The administrator only.
pub async fn admin(State(context): State<Arc<Context>>, request: Request, next: Next) -> Response {
    if context.admin.in_header(request.headers()) {
        return next.run(request).await;
    }
    refuse(&context, &request).into_response()
}

/// The administrator, or a person in a console session; only for what changes nothing.
pub async fn reader(State(context): State<Arc<Context>>, request: Request, next: Next) -> Response {
    let headers = request.headers();
    if context.admin.in_header(headers) || context.admin.in_session(headers, context.clock.now()) {
        return next.run(request).await;
    }
    refuse(&context, &request).into_response()
}

/// The administrator, or a device that is enrolled and not revoked.
pub async fn device(State(context): State<Arc<Context>>, request: Request, next: Next) -> Response {
    if context.admin.in_header(request.headers()) {
        return next.run(request).await;
    }
    let device = request.extensions().get::<Peer>().and_then(|peer| peer.device);
    let Some(device) = device else { return refuse(&context, &request).into_response() };
    match context.store.device_key(device).await {
        Ok(Some(_)) => next.run(request).await,
        Ok(None) => refuse(&context, &request).into_response(),
        Err(error) => Refusal::from(error).into_response(),
    }
}

/// Counts every answer.
pub async fn count(State(context): State<Arc<Context>>, request: Request, next: Next) -> Response {
    let response = next.run(request).await;
    context.metrics.answered(response.status().as_u16());
    response
}

fn refuse(context: &Context, request: &Request) -> Refusal {
    let Some(peer) = request.extensions().get::<Peer>() else { return Refusal::unauthorized() };
    if context.failures.allows(peer.address.ip(), context.clock.now()) {
        tracing::warn!(from = %peer.address.ip(), "refused a request without authority");
        Refusal::unauthorized()
    } else {
        Refusal::too_often()
    }
}
