//! The console as a browser meets it.

use axum::http::{Method, header};

use crate::rig::Rig;

#[tokio::test]
async fn the_console_opens_with_the_token_and_closes_again() {
    let rig = Rig::without_broker().await;
    rig.publish_root().await;
    rig.device("edge <1>").await;
    let browser = rig.stranger().with(header::ACCEPT_LANGUAGE, "fr-FR,fr;q=0.9");

    let asked = browser.get("/").await;
    assert_eq!(asked.status, 200);
    assert!(asked.text().contains("Jeton d’administration"), "{}", asked.text());
    let policy = asked.header(header::CONTENT_SECURITY_POLICY);
    assert!(policy.contains("default-src 'none'") && !policy.contains("unsafe"), "{policy}");

    let wrong = browser.send(Method::POST, "/login", "token=wrong").await;
    assert_eq!(wrong.status, 403);
    assert!(wrong.text().contains("Ce n’est pas le jeton"));

    let form = format!("token={}", rig.admin_token());
    let right = browser.send(Method::POST, "/login", form).await;
    assert_eq!((right.status, right.header(header::LOCATION)), (303, "/?lang=fr"));
    let cookie = right.header(header::SET_COOKIE);
    for part in ["Secure", "HttpOnly", "SameSite=Strict", "Path=/"] {
        assert!(cookie.contains(part), "{cookie}");
    }
    assert!(!cookie.contains(&rig.admin_token()), "the cookie gives the token away");

    let pair = cookie.split(';').next().unwrap();
    let inside = browser.clone().with(header::COOKIE, pair);
    let page = inside.get("/").await.text();
    assert!(page.contains("Appareils") && page.contains("edge &lt;1&gt;"), "{page}");
    let page = inside.get("/?lang=en").await.text();
    assert!(page.contains("Devices") && page.contains("lang=\"en\""));
    for asset in ["/assets/console.css", "/assets/console.js"] {
        assert_eq!(inside.get(asset).await.status, 200);
    }
    // The session reads the event stream, and nothing that changes anything.
    inside.get("/api/v1/devices").await.refused(401, "unauthorized");

    rig.pass(13 * 3_600_000);
    assert!(inside.get("/").await.text().contains("Jeton d’administration"));
}

#[tokio::test]
async fn guessing_the_token_is_slowed_down() {
    let rig = Rig::without_broker().await;
    let mut last = 0;
    for _ in 0..40 {
        last = rig.stranger().send(Method::POST, "/login", "token=guess").await.status;
    }
    assert_eq!(last, 429);
    // Who has the token is not locked out.
    assert_eq!(rig.admin().get("/api/v1/status").await.status, 200);
}
