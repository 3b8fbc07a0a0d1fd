//! Tests of [`super`].
use super::*;

#[test]
fn a_path_is_well_or_not_or_is_none() {
    let ask = |path: &str| match path {
        "/healthz" => Some(Ok(())),
        "/readyz" => Some(Err("the caches are not complete".to_owned())),
        _ => None,
    };
    for (request, status, body) in [
        ("GET /healthz HTTP/1.1", "200 OK", "ok"),
        ("GET /healthz?verbose HTTP/1.1", "200 OK", "ok"),
        ("GET /readyz HTTP/1.1", "503 Service Unavailable", "the caches are not complete"),
        ("GET /healthzz HTTP/1.1", "404 Not Found", "not found"),
        ("POST /healthz HTTP/1.1", "404 Not Found", "not found"),
        ("", "404 Not Found", "not found"),
    ] {
        let text = response(request, &ask);
        assert!(text.starts_with(&format!("HTTP/1.1 {status}\r\n")), "{request:?}: {text}");
        assert!(
            text.ends_with(&format!("Content-Length: {}\r\nConnection: close\r\n\r\n{body}", body.len())),
            "{text}"
        );
    }
}
