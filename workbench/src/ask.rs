//! `socle ask`: a question to the assistant on a machine.

use std::{io, path::PathBuf};

use clap::Args;
use serde_json::{Value, json};

use crate::{
    api,
    files::{self, FileError},
    terminal::{Colour, Terminal},
};

/// Arguments of `socle ask`.
#[derive(Clone, Debug, Args)]
pub struct AskArgs {
    /// The question, in French or English
    pub question: String,
    /// The machine's local API
    #[arg(long, env = "SOCLE_URL", default_value = "http://127.0.0.1:7411")]
    pub url: String,
    /// File with the machine's API token
    #[arg(long, env = "SOCLE_API_TOKEN_FILE", default_value = "/var/lib/socle/identity/api-token")]
    pub token_file: PathBuf,
    /// The model to ask, where a machine has several
    #[arg(long)]
    pub model: Option<String>,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// The token.
    #[error("reading the API token")]
    File(#[from] FileError),
    /// No answer.
    #[error("asking {url}; check that the agent runs there")]
    Call {
        /// Where.
        url: String,
        /// Why.
        source: Box<ureq::Error>,
    },
    /// The agent says no.
    #[error("the agent refused ({status}): {message}")]
    Refused {
        /// HTTP status.
        status: u16,
        /// Its words.
        message: String,
    },
    /// The terminal.
    #[error("writing the result")]
    Output(#[from] io::Error),
}

/// Runs `socle ask`.
pub fn run(args: &AskArgs, terminal: &Terminal) -> Result<(), AskError> {
    let token = files::read_text(&args.token_file)?;
    let answer =
        ask(&api::local_agent(), &args.url, token.trim(), &args.question, args.model.as_deref())?;
    Ok(terminal.result(&shown(&answer, terminal), &answer)?)
}

/// One question to one machine.
pub fn ask(
    agent: &ureq::Agent,
    url: &str,
    token: &str,
    question: &str,
    model: Option<&str>,
) -> Result<Value, AskError> {
    let url = format!("{}/v1/ask", url.trim_end_matches('/'));
    let body = match model {
        Some(model) => json!({ "question": question, "model": model }),
        None => json!({ "question": question }),
    };
    post(agent, url, token, &body)
}

/// What a machine's local API answers to `body`.
pub fn post(
    agent: &ureq::Agent,
    url: String,
    token: &str,
    body: &Value,
) -> Result<Value, AskError> {
    let failed = |source| AskError::Call { url: url.clone(), source: Box::new(source) };
    let mut answer = agent
        .post(&url)
        .header("authorization", format!("Bearer {token}"))
        .header("content-type", "application/json")
        .header("connection", "close")
        .send(body.to_string())
        .map_err(failed)?;
    let status = answer.status();
    let text = answer.body_mut().with_config().limit(1 << 20).read_to_string().map_err(failed)?;
    let value: Value = serde_json::from_str(&text).unwrap_or_default();
    if status.is_success() {
        return Ok(value);
    }
    let message = [&value["error"]["message"], &value["error"]].into_iter().find_map(Value::as_str);
    Err(AskError::Refused {
        status: status.as_u16(),
        message: message.map_or_else(|| text.chars().take(300).collect(), str::to_owned),
    })
}

/// An answer for a person.
pub fn shown(answer: &Value, terminal: &Terminal) -> String {
    let score = answer["score"].as_f64().unwrap_or_default();
    let threshold = answer["threshold"].as_f64().unwrap_or_default();
    if answer["decision"] == "answered" {
        format!(
            "{}\n{}",
            answer["answer"].as_str().unwrap_or_default(),
            terminal.paint(
                Colour::Dim,
                &format!(
                    "{} · {} · score {score:.2}",
                    answer["source"].as_str().unwrap_or("–"),
                    answer["entry"].as_str().unwrap_or("–")
                ),
            ),
        )
    } else {
        format!(
            "{}\n{}",
            terminal.paint(
                Colour::Yellow,
                "I have no answer to that. / Je n'ai pas de réponse à cela."
            ),
            terminal.paint(Colour::Dim, &format!("nearest score {score:.2}, below {threshold:.2}")),
        )
    }
}
