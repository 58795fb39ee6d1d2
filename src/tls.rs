//! TLS to brokers and machines: rustls with the ring provider. There is no switch that turns verification off.

use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};

use crate::config::{Broker, Secret};

/// Why certificates or keys cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The text of a certificate or key cannot be read.
    #[error("reading the {what} (PEM)")]
    Pem {
        /// CA certificates, client certificate or client key.
        what: &'static str,
        /// Why.
        source: rustls::pki_types::pem::Error,
    },
    /// There is no certificate where one is needed.
    #[error("there is no {what}")]
    Empty {
        /// CA certificate or client certificate.
        what: &'static str,
    },
    /// The machine has no CA certificates, and none were configured.
    #[error("the system has no CA certificates ({errors}); set ca_file")]
    NoSystemRoots {
        /// What was found instead.
        errors: String,
    },
    /// A certificate or key is not fit for use.
    #[error("using certificates and key")]
    Unfit(#[source] rustls::Error),
}

/// The TLS settings for a broker: its CA certificates, the system's when it has none, and its client
/// certificate. TLS 1.2 and 1.3.
///
/// # Errors
/// [`TlsError`].
pub fn client_config(broker: &Broker) -> Result<Arc<ClientConfig>, TlsError> {
    config(broker.ca.as_deref(), broker.identity.as_ref())
}

/// The TLS settings of any client: CA certificates (the system's when there are none), and its own
/// certificate and key, all PEM. TLS 1.2 and 1.3.
///
/// # Errors
/// [`TlsError`].
pub fn config(
    ca: Option<&[u8]>,
    identity: Option<&(Vec<u8>, Secret)>,
) -> Result<Arc<ClientConfig>, TlsError> {
    let mut roots = RootCertStore::empty();
    match ca {
        Some(pem) => {
            for certificate in certificates(pem, "CA certificate")? {
                roots.add(certificate).map_err(TlsError::Unfit)?;
            }
        }
        None => {
            let found = rustls_native_certs::load_native_certs();
            // Systems carry certificates that are odd or outdated; the others do.
            roots.add_parsable_certificates(found.certs);
            if roots.is_empty() {
                let errors: Vec<_> = found.errors.iter().map(ToString::to_string).collect();
                return Err(TlsError::NoSystemRoots { errors: errors.join(", ") });
            }
        }
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(TlsError::Unfit)?
        .with_root_certificates(roots);
    let config = match identity {
        None => builder.with_no_client_auth(),
        Some((certificate, key)) => {
            let chain = certificates(certificate, "client certificate")?;
            let key = PrivateKeyDer::from_pem_slice(key.expose().as_bytes())
                .map_err(|source| TlsError::Pem { what: "client key", source })?;
            builder.with_client_auth_cert(chain, key).map_err(TlsError::Unfit)?
        }
    };
    Ok(Arc::new(config))
}

fn certificates(pem: &[u8], what: &'static str) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let certificates: Vec<_> = CertificateDer::pem_slice_iter(pem)
        .collect::<Result<_, _>>()
        .map_err(|source| TlsError::Pem { what, source })?;
    if certificates.is_empty() { Err(TlsError::Empty { what }) } else { Ok(certificates) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn broker(ca: Option<&[u8]>, identity: Option<(&[u8], &str)>) -> Broker {
        Broker {
            host: "broker.example".to_owned(),
            port: 8883,
            tls: true,
            websocket: false,
            v5: false,
            client_id: "test".to_owned(),
            username: None,
            password: None,
            ca: ca.map(<[u8]>::to_vec),
            identity: identity
                .map(|(certificate, key)| (certificate.to_vec(), Secret::new(key.to_owned()))),
        }
    }

    #[test]
    fn text_that_is_no_certificate_is_refused() {
        let empty = client_config(&broker(Some(b"no PEM at all"), None));
        assert!(matches!(empty, Err(TlsError::Empty { what: "CA certificate" })), "{empty:?}");
        let torn = b"-----BEGIN CERTIFICATE-----\nAAAA\n";
        let torn = client_config(&broker(Some(torn), None));
        assert!(matches!(torn, Err(TlsError::Pem { .. })), "{torn:?}");
        let unfit = b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        let unfit = client_config(&broker(Some(unfit), None));
        assert!(matches!(unfit, Err(TlsError::Unfit(_))), "{unfit:?}");
    }
}
