//! The page for a browser.

use data_encoding::BASE64;
use serde_json::json;

use crate::{
    fixture::{Gateway, MODEL, TOKEN},
    http,
};

#[test]
fn a_browser_sees_models_slots_and_figures_in_its_language() {
    let gateway = Gateway::with_model();
    let body = json!({"model": MODEL, "input": "a"});
    assert_eq!(gateway.post("/v1/embeddings", &body).status, 200);
    let password = format!("Basic {}", BASE64.encode(format!("me:{TOKEN}").as_bytes()));
    let shown = |lang: &str| {
        let headers = [format!("Authorization: {password}"), format!("Accept-Language: {lang}")];
        let headers: Vec<&str> = headers.iter().map(String::as_str).collect();
        http::send_with(&mut http::connect(gateway.address), "GET /", None, &headers, b"")
    };
    for (lang, word) in [("fr", "Les modèles répondent"), ("en", "Models can be asked")] {
        let page = shown(lang);
        assert_eq!((page.status, page.header("content-language")), (200, Some(lang)));
        let policy = page.header("content-security-policy").unwrap();
        assert!(policy.starts_with("default-src 'none';"), "{policy}");
        let html = String::from_utf8(page.body).unwrap();
        assert!(html.contains(word) && html.contains(MODEL), "{html}");
        assert!(html.contains("prefers-color-scheme:dark"), "{html}");
        for foreign in ["http://", "https://", "<script", "src="] {
            assert!(!html.contains(foreign), "{foreign} in {html}");
        }
    }
}

#[test]
fn the_page_asks_a_browser_for_the_token_and_other_routes_do_not_take_it_so() {
    let gateway = Gateway::without_model();
    let ask = |request: &str, headers: &[&str]| {
        http::send_with(&mut http::connect(gateway.address), request, None, headers, b"")
    };
    let refused = ask("GET /", &[]);
    assert_eq!(refused.status, 401);
    assert!(refused.head.contains("Basic realm="), "{}", refused.head);
    let password =
        format!("Authorization: Basic {}", BASE64.encode(format!(":{TOKEN}").as_bytes()));
    assert_eq!(ask("GET /status", &[&password]).status, 200);
    assert_eq!(ask("GET /v1/status", &[&password]).status, 401);
    assert_eq!(ask("POST /v1/embeddings", &[&password]).status, 401);
    let wrong = format!("Authorization: Basic {}", BASE64.encode(b":wrong"));
    assert_eq!(ask("GET /", &[&wrong]).status, 401);
}
