//! What every request passes: request id, host, origin, token, deadline, security headers.

use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use sha2::{Digest, Sha256};

use crate::config::{Http, Scope, Token};

use super::problem::Problem;
use super::{ANSWER_TIMEOUT, Api, Shared};

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// Longest request id that is taken over.
const REQUEST_ID_MAX: usize = 128;

pub(super) async fn guard(State(api): State<Api>, request: Request, next: Next) -> Response {
    let id = request_id(request.headers());
    let mut response = match allowed(&api, &request) {
        Ok(()) => match tokio::time::timeout(ANSWER_TIMEOUT, next.run(request)).await {
            Ok(response) => response,
            Err(_) => {
                Problem::unavailable(format!("no answer within {ANSWER_TIMEOUT:?}")).into_response()
            }
        },
        Err(problem) => problem.into_response(),
    };
    let headers = response.headers_mut();
    headers.insert(REQUEST_ID, id);
    for (name, value) in SECURITY_HEADERS {
        headers.entry(name).or_insert(HeaderValue::from_static(value));
    }
    response
}

const SECURITY_HEADERS: [(HeaderName, &str); 5] = [
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::X_FRAME_OPTIONS, "DENY"),
    (header::REFERRER_POLICY, "no-referrer"),
    (header::CACHE_CONTROL, "no-store"),
    (header::CONTENT_SECURITY_POLICY, "default-src 'none'; frame-ancestors 'none'"),
];

/// The sender's id when it is a plain word, else a new one.
fn request_id(headers: &HeaderMap) -> HeaderValue {
    let plain = |id: &&HeaderValue| {
        let legal = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_.:".contains(byte);
        (1..=REQUEST_ID_MAX).contains(&id.len()) && id.as_bytes().iter().all(legal)
    };
    headers.get(REQUEST_ID).filter(plain).cloned().unwrap_or_else(|| {
        HeaderValue::from_str(&format!("{:032x}", fastrand::u128(..)))
            .expect("hexadecimal digits are a header value")
    })
}

fn allowed(api: &Shared, request: &Request) -> Result<(), Problem> {
    let headers = request.headers();
    if api.address.ip().is_loopback() {
        own_host(headers)?;
    }
    if request.method() != Method::GET && request.method() != Method::HEAD {
        same_origin(headers)?;
    }
    let setting = api.setting();
    let http = &setting.config.http;
    let needed = needed(api, http, request.method(), request.uri().path());
    match needed {
        Some(needed) if !http.tokens.is_empty() => authorised(headers, &http.tokens, needed),
        Some(_) | None => Ok(()),
    }
}

/// Which scope a request needs; none for what is open to all.
fn needed(api: &Shared, http: &Http, method: &Method, path: &str) -> Option<Scope> {
    match path {
        // The page holds nothing; what it shows it fetches with the token typed into it.
        "/" | "/page.js" | "/page.css" | "/healthz" | "/readyz" => None,
        "/metrics" if api.address.ip().is_loopback() || http.metrics_open => None,
        _ if *method == Method::GET || *method == Method::HEAD => Some(Scope::Read),
        _ if path.ends_with("/retry")
            || path.ends_with("/relearn")
            || path.ends_with("/reload")
            || path.ends_with("/train")
            || path.contains("/models") =>
        {
            Some(Scope::Admin)
        }
        _ => Some(Scope::Operate),
    }
}

fn authorised(headers: &HeaderMap, tokens: &[Token], needed: Scope) -> Result<(), Problem> {
    let given = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    let bearer = given.and_then(|value| {
        let (scheme, token) = value.split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
    });
    let Some(bearer) = bearer else {
        return Err(Problem::new(StatusCode::UNAUTHORIZED, "a bearer token is needed"));
    };
    let hash: [u8; 32] = Sha256::digest(bearer).into();
    let mut scope = None;
    // All are compared, each in constant time, so that the time tells nothing.
    for token in tokens {
        let differing = token.sha256.iter().zip(hash).fold(0, |all, (a, b)| all | (a ^ b));
        if std::hint::black_box(differing) == 0 {
            scope = scope.max(Some(token.scope));
        }
    }
    match scope {
        None => Err(Problem::new(StatusCode::UNAUTHORIZED, "this token is not known")),
        Some(scope) if scope < needed => {
            let word = match needed {
                Scope::Read => "read",
                Scope::Operate => "operate",
                Scope::Admin => "admin",
            };
            Err(Problem::new(StatusCode::FORBIDDEN, format!("this needs the scope `{word}`")))
        }
        Some(_) => Ok(()),
    }
}

/// A page from elsewhere can point its own name at 127.0.0.1 (DNS rebinding), but its requests then
/// carry that name.
fn own_host(headers: &HeaderMap) -> Result<(), Problem> {
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok());
    let Some(host) = host else {
        return Err(Problem::bad_request("the header Host is missing"));
    };
    let name = match host.strip_prefix('[') {
        Some(bracketed) => bracketed.split(']').next().unwrap_or(""),
        None => host.rsplit_once(':').map_or(host, |(name, _)| name),
    };
    let address: Option<std::net::IpAddr> = name.parse().ok();
    if name.eq_ignore_ascii_case("localhost") || address.is_some_and(|ip| ip.is_loopback()) {
        Ok(())
    } else {
        Err(Problem::new(
            StatusCode::MISDIRECTED_REQUEST,
            "this address is served as localhost or 127.0.0.1 alone",
        ))
    }
}

/// Browsers say from where a page sends: another page must not operate this one's machines.
fn same_origin(headers: &HeaderMap) -> Result<(), Problem> {
    let text = |name: HeaderName| headers.get(name).and_then(|value| value.to_str().ok());
    let foreign = match text(header::ORIGIN) {
        None => text(HeaderName::from_static("sec-fetch-site")) == Some("cross-site"),
        Some(origin) => {
            let from = origin.split_once("://").map(|(_, host)| host);
            from.is_none() || from != text(header::HOST)
        }
    };
    if foreign {
        return Err(Problem::new(StatusCode::FORBIDDEN, "requests of other pages are refused"));
    }
    Ok(())
}
