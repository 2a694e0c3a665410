//! How fast one machine computes, asked over its local API as an application asks.

use std::time::Duration;

use serde_json::{Value, json};

use crate::{
    ask::{self, AskError},
    demo::{traffic::Target, wait},
};

/// 25 English and 25 French sentences, one request.
const SENTENCES: &str = include_str!("../../data/faq/sentences-50.txt");
/// Requests are sent until so much time has passed.
const AT_LEAST: Duration = Duration::from_secs(1);
/// Most requests.
const REQUESTS_MAX: usize = 1000;

/// What was computed in which time.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Speed {
    /// Tokens, as the machine counts them.
    pub tokens: u64,
    /// Time it took, the way there and back included.
    pub took: Duration,
}

impl Speed {
    /// Tokens by time.
    pub fn tokens_per_second(self) -> f64 {
        self.tokens as f64 / self.took.as_secs_f64().max(1e-6)
    }
}

/// Embeds the same sentences again and again, one request after another.
pub fn measure(agent: &ureq::Agent, target: &Target, model: &str) -> Result<Speed, AskError> {
    let sentences: Vec<&str> = SENTENCES.lines().collect();
    let body = json!({ "model": model, "input": sentences, "encoding_format": "base64" });
    let embed = || -> Result<u64, AskError> {
        let url = format!("{}/v1/embeddings", target.url);
        let answer: Value = ask::post(agent, url, &target.token, &body)?;
        Ok(answer["usage"]["total_tokens"].as_u64().unwrap_or_default())
    };
    // The first one finds caches cold.
    embed()?;
    let since = wait::now();
    let mut speed = Speed { tokens: 0, took: Duration::ZERO };
    for _ in 0..REQUESTS_MAX {
        speed.tokens += embed()?;
        speed.took = since.elapsed();
        if speed.took >= AT_LEAST {
            break;
        }
    }
    Ok(speed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn speed_is_tokens_by_time() {
        let speed = Speed { tokens: 900, took: Duration::from_millis(1500) };
        assert!((speed.tokens_per_second() - 600.0).abs() < 1e-9);
        assert!(Speed { tokens: 0, took: Duration::ZERO }.tokens_per_second() == 0.0);
    }
}
