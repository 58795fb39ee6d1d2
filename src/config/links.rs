//! Addresses of other machines: MQTT brokers, and `[upstream]`.

use super::files::{Files, machine_hash};
use super::tree::{NOT_AVAILABLE, Section};
use super::{Broker, Certificates, Encoding, MqttSource, ReadingsMode, Secret, Upstream, values};

/// What default client ids are made of, and where files are.
pub(super) struct Names<'a> {
    pub(super) site: &'a str,
    pub(super) gateway: &'a str,
    pub(super) files: &'a Files,
}

impl Names<'_> {
    /// Unique among all clients of a broker: site, gateway, connection, machine.
    fn client_id(&self, connection: Option<&str>) -> String {
        let machine = machine_hash();
        let parts = [self.site, self.gateway, connection.unwrap_or(""), &machine];
        let parts: Vec<&str> = parts.into_iter().filter(|part| !part.is_empty()).collect();
        parts.join("-")
    }
}

/// `[upstream]`; `None` when it is absent or off.
pub(super) fn upstream(root: &Section<'_>, names: &Names<'_>) -> Option<Upstream> {
    let table = root.table("upstream")?;
    let off = table.text("url").is_some_and(|url| url.value == "off");
    let broker = if off { skip_broker(&table) } else { broker(&table, names, None) };
    qos(&table);
    table.read("format", |text| match text {
        "cloudevents" => Ok(()),
        "sparkplug-b" => Err(format!("format `sparkplug-b` is {NOT_AVAILABLE}")),
        _ => Err(format!("`{text}` is no format: cloudevents")),
    });
    let readings = table.read("readings", |text| match text {
        "all" => Ok(ReadingsMode::All),
        "changes" => Ok(ReadingsMode::Changes),
        "none" => Ok(ReadingsMode::None),
        "rollups" => Err(format!("readings `rollups` is {NOT_AVAILABLE}")),
        _ => Err(format!("`{text}` is no choice: all, changes, none")),
    });
    let encoding = table.read("encoding", |text| match text {
        "json" => Ok(Encoding::Json),
        "postcard" => Ok(Encoding::Postcard),
        _ => Err(format!("`{text}` is no encoding: json, postcard")),
    });
    if table.flag("commands") == Some(true) {
        table.wrong("commands", format!("`commands = true` is {NOT_AVAILABLE}"));
    }
    table.later("issuer");
    table.finish();
    Some(Upstream {
        broker: broker?,
        qos: 1,
        readings: readings.unwrap_or(ReadingsMode::All),
        encoding: encoding.unwrap_or(Encoding::Json),
    })
}

/// Rows are passed on their own acknowledgement, which QoS 0 never gives; QoS 2 gives nothing more
/// to a subscriber that drops repeats by id.
fn qos(table: &Section<'_>) {
    if let Some(qos) = table.integer("qos", 0, 2)
        && qos != 1
    {
        table.wrong("qos", format!("QoS {qos} is {NOT_AVAILABLE}: only 1"));
    }
}

/// Marks the keys of a broker as known without reading the files behind them.
fn skip_broker(table: &Section<'_>) -> Option<Broker> {
    for key in BROKER_KEYS {
        table.has(key);
    }
    None
}

const BROKER_KEYS: [&str; 7] =
    ["version", "client_id", "ca_file", "cert_file", "key_file", "username", "password_file"];

/// The keys that `[upstream]` and `[[mqtt]]` share.
pub(super) fn broker(
    table: &Section<'_>,
    names: &Names<'_>,
    connection: Option<&str>,
) -> Option<Broker> {
    let address = table.need("url", |text| {
        let url = values::url(text)?;
        let (tls, default_port) = match url.scheme.as_str() {
            "mqtt" => (false, 1883),
            "mqtts" => (true, 8883),
            "ws" | "wss" => return Err(format!("{}:// is {NOT_AVAILABLE}", url.scheme)),
            _ => return Err(format!("`{text}` is no broker: mqtt:// or mqtts://")),
        };
        if !matches!(url.rest.as_str(), "" | "/") {
            return Err(format!("`{text}` has a path, which mqtt:// does not have"));
        }
        Ok((url.host, url.port.unwrap_or(default_port), tls))
    });
    table.read("version", |text| match text {
        "3.1.1" => Ok(()),
        "5" => Err(format!("version `5` is {NOT_AVAILABLE}: 3.1.1")),
        _ => Err(format!("`{text}` is no version: 3.1.1")),
    });
    let client_id = table.read("client_id", |text| {
        if text.is_empty() || text.len() > CLIENT_ID_MAX || text.contains(char::is_control) {
            return Err(format!("must have 1 to {CLIENT_ID_MAX} printable characters"));
        }
        Ok(text.to_owned())
    });
    let Certificates { ca, identity } = certificates(table, names);
    let username = table.text("username").map(|name| name.value.to_owned());
    let password = table.read("password_file", |name| {
        let text = names.files.secret(name)?;
        // Editors end files with a line end, which is no part of the password.
        let password = text.trim_end_matches(['\r', '\n']);
        if password.is_empty() {
            Err("the file is empty".to_owned())
        } else {
            Ok(password.to_owned())
        }
    });
    if table.has("password_file") && username.is_none() {
        table.wrong("password_file", "needs `username` beside it (MQTT 3.1.1 section 3.1.2.9)");
    }
    let (host, port, tls) = address?;
    for key in ["ca_file", "cert_file", "key_file"] {
        if !tls && table.has(key) {
            table.wrong(key, "has no effect without mqtts://");
        }
    }
    Some(Broker {
        host,
        port,
        tls,
        websocket: false,
        v5: false,
        client_id: client_id.unwrap_or_else(|| names.client_id(connection)),
        username,
        password: password.map(Secret::new),
        ca,
        identity,
    })
}

/// `ca_file`, `cert_file` and `key_file`, wherever TLS is spoken.
pub(super) fn certificates(table: &Section<'_>, names: &Names<'_>) -> Certificates {
    let ca = table.read("ca_file", |name| pem(names.files.public(name)?, "CERTIFICATE"));
    let cert = table.read("cert_file", |name| pem(names.files.public(name)?, "CERTIFICATE"));
    let key = table.read("key_file", |name| {
        let text = names.files.secret(name)?;
        pem(text.into_bytes(), "PRIVATE KEY")
            .map(|bytes| Secret::new(String::from_utf8_lossy(&bytes).into_owned()))
    });
    for (key, other) in [("cert_file", "key_file"), ("key_file", "cert_file")] {
        if table.has(key) && !table.has(other) {
            table.wrong(key, format!("needs `{other}` beside it"));
        }
    }
    Certificates { ca, identity: cert.zip(key) }
}

/// Longest client id; many brokers take more, few need it.
const CLIENT_ID_MAX: usize = 256;

fn pem(bytes: Vec<u8>, what: &str) -> Result<Vec<u8>, String> {
    let text = String::from_utf8_lossy(&bytes);
    let found = text.lines().any(|line| line.starts_with("-----BEGIN ") && line.contains(what));
    if found { Ok(bytes) } else { Err(format!("the file holds no PEM block `{what}`")) }
}

/// Two connections to one broker under one id throw each other out for ever.
pub(super) fn check_client_ids(
    root: &Section<'_>,
    upstream: Option<&Upstream>,
    mqtt: &[(MqttSource, super::mistake::Place)],
) {
    let mut seen: Vec<(&Broker, &str)> = Vec::new();
    seen.extend(upstream.map(|upstream| (&upstream.broker, "[upstream]")));
    for (source, at) in mqtt {
        let broker = &source.broker;
        let same = |other: &Broker| {
            (&other.host, other.port, &other.client_id)
                == (&broker.host, broker.port, &broker.client_id)
        };
        if let Some((_, other)) = seen.iter().find(|(other, _)| same(other)) {
            let id = &broker.client_id;
            root.wrong_at(
                at,
                "mqtt.client_id",
                format!("{other} has the client id `{id}` at the same broker"),
            );
        }
        seen.push((broker, source.name.as_str()));
    }
}
