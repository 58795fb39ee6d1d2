//! A POST with JSON, over plain HTTP: for a receiver on the plant's own network.
//!
//! ```text
//! POST /hook
//! Content-Type: application/json
//! Idempotency-Key: 0197…
//!
//! {"id":"0197…","template":"alarm-raised","severity":"high","recipients":["tech-1"],
//!  "subject":"…","text":"…"}
//! ```
//!
//! Any 2xx is a receipt. Redirects are not followed and no proxy is asked: a message goes where the
//! configuration says, or nowhere. Errors name the host alone, because the path of a webhook is
//! often its password, and errors are told upstream.

use std::sync::LazyLock;
use std::time::Duration;

use serde::Serialize;
use ureq::Agent;

use super::NotifyError;
use crate::domain::event::Message;
use crate::domain::ids::EventId;

/// From looking the name up to the last byte of the answer.
const TIMEOUT: Duration = Duration::from_secs(10);

/// The body, apart from the domain's type: a rename inside must not change it.
#[derive(Serialize)]
struct Payload<'a> {
    id: EventId,
    template: &'a str,
    severity: &'a str,
    recipients: &'a [String],
    subject: &'a str,
    text: &'a str,
}

/// One agent for all posts. A connection that was kept may have died unseen, which a POST cannot
/// tell from a refusal; so none is kept.
static AGENT: LazyLock<Agent> = LazyLock::new(|| {
    Agent::config_builder()
        .timeout_global(Some(TIMEOUT))
        .max_redirects(0)
        .http_status_as_error(false)
        .max_idle_connections(0)
        .proxy(None)
        .user_agent(concat!("wheeltap/", env!("CARGO_PKG_VERSION")))
        .build()
        .into()
});

/// Posts the message and waits for its receipt.
///
/// # Errors
/// See [`NotifyError`].
pub(super) async fn post(id: EventId, message: &Message, url: &str) -> Result<(), NotifyError> {
    if !url.starts_with("http://") {
        return Err(NotifyError::Scheme { host: host(url) });
    }
    let payload = Payload {
        id,
        template: &message.template,
        severity: message.severity.as_str(),
        recipients: &message.recipients,
        subject: &message.subject,
        text: &message.text,
    };
    let body = serde_json::to_string(&payload).expect("a message is JSON");
    let to = url.to_owned();
    // The client blocks; a thread of the pool does so for at most the timeout.
    let posted = tokio::task::spawn_blocking(move || {
        AGENT
            .post(&to)
            .content_type("application/json")
            .header("Idempotency-Key", id.to_string())
            .send(body)
            .map(|answer| answer.status().as_u16())
    });
    match posted.await {
        Ok(Ok(status)) if (200..300).contains(&status) => Ok(()),
        Ok(Ok(status)) => Err(NotifyError::Refused { host: host(url), status }),
        Ok(Err(source)) => {
            Err(NotifyError::Unreached { host: host(url), source: Box::new(source) })
        }
        Err(_) => Err(NotifyError::BrokenOff { host: host(url) }),
    }
}

/// Host and port of an `http://` address, without whoever logs in there.
fn host(url: &str) -> String {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    authority.rsplit('@').next().unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader, Read, Write};
    use std::net::TcpListener;

    use super::*;
    use crate::config::{Channel, NotifyChannel};
    use crate::domain::severity::Severity;
    use crate::notify::deliver;

    fn message() -> Message {
        Message {
            channel: "webhook".to_owned(),
            recipients: vec!["tech-1".to_owned()],
            template: "alarm-raised".to_owned(),
            severity: Severity::High,
            subject: "high alarm, P-101".to_owned(),
            text: "86.5 °C\nabove high".to_owned(),
            attempts: 0,
        }
    }

    fn id() -> EventId {
        EventId(uuid::Uuid::from_u128(9))
    }

    /// A server that answers one request with `answer` and returns its headers and body.
    fn server(answer: &'static str) -> (String, std::thread::JoinHandle<(String, String)>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/hook", listener.local_addr().unwrap());
        let served = std::thread::spawn(move || {
            let (stream, _) = listener.accept().unwrap();
            let mut reader = BufReader::new(stream.try_clone().unwrap());
            let (mut head, mut length) = (String::new(), 0);
            loop {
                let mut line = String::new();
                reader.read_line(&mut line).unwrap();
                if line.trim().is_empty() {
                    break;
                }
                if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
                    length = value.trim().parse().unwrap();
                }
                head.push_str(&line);
            }
            let mut body = vec![0; length];
            reader.read_exact(&mut body).unwrap();
            let mut stream = stream;
            stream.write_all(answer.as_bytes()).unwrap();
            (head, String::from_utf8(body).unwrap())
        });
        (url, served)
    }

    fn run<T>(future: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
    }

    fn channel(url: &str) -> Vec<NotifyChannel> {
        let channel = Channel::Webhook { url: url.to_owned() };
        vec![NotifyChannel { channel, min_severity: Severity::Medium }]
    }

    #[test]
    fn a_receiver_gets_the_message_as_json_with_its_id() {
        let (url, served) = server("HTTP/1.1 204 No Content\r\n\r\n");
        run(deliver(id(), &message(), &channel(&url))).unwrap();
        let (head, body) = served.join().unwrap();
        assert!(head.starts_with("POST /hook HTTP/1.1\r\n"), "{head}");
        let head = head.to_ascii_lowercase();
        assert!(head.contains(&format!("idempotency-key: {}", id())), "{head}");
        let body: serde_json::Value = serde_json::from_str(&body).unwrap();
        assert_eq!(body["text"], "86.5 °C\nabove high");
        assert_eq!(body["id"], id().to_string());
    }

    #[test]
    fn errors_name_the_host_alone() {
        for (url, expected) in [
            ("http://chat.plant:8065/hooks/s3cret", "chat.plant:8065"),
            ("http://me:pass@10.0.0.1/x", "10.0.0.1"),
            ("http://10.0.0.1?token=x", "10.0.0.1"),
            ("nonsense", "nonsense"),
        ] {
            assert_eq!(host(url), expected);
        }
    }

    #[test]
    fn answers_say_whether_to_try_again() {
        for (answer, transient) in [
            ("HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n", true),
            ("HTTP/1.1 429 Slow\r\nContent-Length: 0\r\n\r\n", true),
            ("HTTP/1.1 404 Gone\r\nContent-Length: 0\r\n\r\n", false),
            ("HTTP/1.1 302 Else\r\nLocation: http://x/\r\nContent-Length: 0\r\n\r\n", false),
            ("garbage\r\n\r\n", true),
        ] {
            let (url, served) = server(answer);
            let error = run(deliver(id(), &message(), &channel(&url))).unwrap_err();
            assert_eq!(error.is_transient(), transient, "{answer}: {error:?}");
            served.join().unwrap();
        }
    }

    #[test]
    fn nobody_there_is_worth_another_try_and_a_wrong_address_is_not() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/", listener.local_addr().unwrap());
        drop(listener);
        assert!(run(deliver(id(), &message(), &channel(&url))).unwrap_err().is_transient());
        for url in ["https://example.com/", "file:///etc/passwd", ""] {
            let error = run(deliver(id(), &message(), &channel(url))).unwrap_err();
            assert!(matches!(error, NotifyError::Scheme { .. }), "{error:?}");
        }
        let error = run(deliver(id(), &message(), &[])).unwrap_err();
        assert!(matches!(error, NotifyError::NoChannel { .. }) && !error.is_transient());
    }
}
