//! TLS towards a broker.

use std::fs::File;
use std::hash::{Hash, Hasher};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use serde::{Deserialize, Serialize};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::client::Resumption;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio_rustls::rustls::{
    AlertDescription, CertificateError, ClientConfig, ClientConnection, Error, InconsistentKeys,
    RootCertStore,
};

use super::wire::is_closed;
use crate::driver::reach::io_text;

/// A file of certificates is far smaller, and so is a key.
const MAX_FILE: u64 = 1024 * 1024;
/// What the library may keep unsent: one record.
const BUFFER: usize = 16 * 1024;

/// The files that a user may name.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Files {
    /// `mqtt_ca_file`: whose certificates are believed; none: those of the system.
    pub ca: Option<PathBuf>,
    /// `mqtt_cert_file`: who we are.
    pub cert: Option<PathBuf>,
    /// `mqtt_key_file`: its key.
    pub key: Option<PathBuf>,
}

/// What TLS needs, read and checked.
#[derive(Clone)]
pub struct Tls {
    files: Files,
    /// When each of the files was written.
    written: Vec<Option<SystemTime>>,
    config: Arc<ClientConfig>,
}

impl std::fmt::Debug for Tls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The rest is long, and about keys (rule R11).
        f.debug_struct("Tls")
            .field("files", &self.files)
            .finish_non_exhaustive()
    }
}

impl PartialEq for Tls {
    fn eq(&self, other: &Self) -> bool {
        self.files == other.files && self.written == other.written
    }
}

impl Hash for Tls {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.files.hash(state);
        self.written.hash(state);
    }
}

impl Tls {
    /// Reads the files. The error names the option, the file, and what is wrong with it.
    pub fn load(files: Files) -> Result<Self, String> {
        let written = [&files.ca, &files.cert, &files.key].map(|path| written_at(path.as_deref()));
        let roots = match &files.ca {
            Some(path) => roots_of(path)?,
            None => system_roots()?,
        };
        let provider = Arc::new(ring::default_provider()); // never one that another crate chose
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|_| "this build cannot speak TLS".to_owned())?
            .with_root_certificates(roots);
        let mut config = match (&files.cert, &files.key) {
            (None, None) => builder.with_no_client_auth(),
            (Some(cert), Some(key)) => builder
                .with_client_auth_cert(certificates("mqtt_cert_file", cert)?, private_key(key)?)
                .map_err(|error| key_text(&error, cert, key))?,
            (Some(_), None) => return Err(needs("mqtt_cert_file", "mqtt_key_file")),
            (None, Some(_)) => return Err(needs("mqtt_key_file", "mqtt_cert_file")),
        };
        // One connection at a time, for days: a memory of sessions would only take room.
        config.resumption = Resumption::disabled();
        Ok(Self {
            files,
            written: written.into(),
            config: Arc::new(config),
        })
    }

    /// What was read.
    pub fn files(&self) -> Files {
        self.files.clone()
    }

    /// The TLS handshake. Dropping it drops the socket as it is.
    pub(super) async fn connect(
        &self,
        host: &str,
        stream: TcpStream,
    ) -> Result<(TcpStream, ClientConnection), String> {
        let name = host.trim_matches(['[', ']']).trim_end_matches('.');
        let name = ServerName::try_from(name.to_owned())
            .map_err(|_| format!("'{host}' is no name that a certificate can be for"))?;
        let connecting = TlsConnector::from(Arc::clone(&self.config));
        let connecting = connecting.connect_with(name, stream, |session| {
            session.set_buffer_limit(Some(BUFFER));
        });
        match connecting.await {
            Ok(stream) => Ok(stream.into_inner()),
            Err(error) => Err(self.handshake_text(&error, host)),
        }
    }

    fn handshake_text(&self, error: &io::Error, host: &str) -> String {
        match tls_error(error) {
            Some(Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) => format!("the broker's certificate is not for '{host}'"),
            // What does not understand a word of it hangs up.
            None if is_closed(error) => NO_TLS.to_owned(),
            _ => self.error_text(error).unwrap_or_else(|| io_text(error)),
        }
    }

    /// What a broken encryption means for people; nothing if it is not that.
    #[expect(clippy::wildcard_enum_match_arm, reason = "not our enums")]
    pub(super) fn error_text(&self, error: &io::Error) -> Option<String> {
        let text = match tls_error(error)? {
            Error::InvalidCertificate(error) => self.certificate_text(error),
            Error::AlertReceived(alert) => self.alert_text(*alert),
            Error::InvalidMessage(_) | Error::InappropriateMessage { .. } => NO_TLS,
            Error::PeerIncompatible(_) => NOT_SAFE,
            Error::NoCertificatesPresented => "the broker has no certificate",
            _ => "the encryption failed",
        };
        Some(text.to_owned())
    }

    #[expect(clippy::wildcard_enum_match_arm, reason = "not our enum")]
    fn certificate_text(&self, error: &CertificateError) -> &'static str {
        match error {
            CertificateError::UnknownIssuer | CertificateError::BadSignature => {
                if self.files.ca.is_some() {
                    "the broker's certificate is not signed by the CA in mqtt_ca_file"
                } else {
                    "the broker's certificate is signed by nobody known; name its CA in \
                     mqtt_ca_file"
                }
            }
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
                "the broker's certificate has expired, or this computer's clock is wrong"
            }
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
                "the broker's certificate is not valid yet, or this computer's clock is wrong"
            }
            CertificateError::Revoked => "the broker's certificate was revoked",
            _ => "the broker's certificate is not acceptable",
        }
    }

    #[expect(clippy::wildcard_enum_match_arm, reason = "not our enum")]
    fn alert_text(&self, alert: AlertDescription) -> &'static str {
        let ours = self.files.cert.is_some();
        match alert {
            AlertDescription::CertificateRequired if !ours => {
                "the broker wants a client certificate (mqtt_cert_file, mqtt_key_file)"
            }
            AlertDescription::CertificateRequired
            | AlertDescription::BadCertificate
            | AlertDescription::UnsupportedCertificate
            | AlertDescription::CertificateRevoked
            | AlertDescription::CertificateExpired
            | AlertDescription::CertificateUnknown
            | AlertDescription::UnknownCA
            | AlertDescription::AccessDenied
            | AlertDescription::DecryptError
                if ours =>
            {
                "the broker does not accept our certificate (mqtt_cert_file)"
            }
            // TLS 1.2 has no word of its own for this.
            AlertDescription::HandshakeFailure if !ours => {
                "the broker refuses the TLS handshake; it may want a client certificate \
                 (mqtt_cert_file, mqtt_key_file)"
            }
            AlertDescription::ProtocolVersion | AlertDescription::InsufficientSecurity => NOT_SAFE,
            AlertDescription::UnrecognisedName => {
                "the broker does not know the name by which it is called"
            }
            _ => "the broker refuses the TLS handshake",
        }
    }
}

const NO_TLS: &str = "the broker does not speak TLS on this port (mqtt_port, mqtt_tls)";
const NOT_SAFE: &str = "the broker's TLS is too old";

fn tls_error(error: &io::Error) -> Option<&Error> {
    error.get_ref()?.downcast_ref()
}

fn roots_of(path: &Path) -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates("mqtt_ca_file", path)? {
        roots
            .add(certificate)
            .map_err(|_| wrong("mqtt_ca_file", path, "holds a certificate that is none"))?;
    }
    Ok(roots)
}

fn system_roots() -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if roots.is_empty() {
        return Err(
            "this computer knows no certificate authorities; name the broker's CA in \
             'mqtt_ca_file'"
                .into(),
        );
    }
    Ok(roots)
}

fn certificates(option: &str, path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let text = read(option, path)?;
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&text).collect();
    match found {
        Err(_) => Err(wrong(option, path, "damaged")),
        Ok(found) if found.is_empty() => {
            Err(wrong(option, path, "holds no certificate in PEM form"))
        }
        Ok(found) => Ok(found),
    }
}

fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, String> {
    let option = "mqtt_key_file";
    let text = read(option, path)?;
    match PrivateKeyDer::pem_slice_iter(&text).next() {
        Some(Ok(key)) => Ok(key),
        Some(Err(_)) => Err(wrong(option, path, "damaged")),
        None if holds(&text, b"ENCRYPTED PRIVATE KEY") => Err(wrong(
            option,
            path,
            "holds a key with a passphrase; it must be without one",
        )),
        None => Err(wrong(option, path, "holds no private key in PEM form")),
    }
}

fn holds(text: &[u8], words: &[u8]) -> bool {
    text.windows(words.len()).any(|window| window == words)
}

#[expect(clippy::wildcard_enum_match_arm, reason = "not our enum")]
fn key_text(error: &Error, cert: &Path, key: &Path) -> String {
    match error {
        Error::InconsistentKeys(InconsistentKeys::KeyMismatch) => {
            let what = format!("not the key of the certificate in {}", cert.display());
            wrong("mqtt_key_file", key, &what)
        }
        Error::InvalidCertificate(_) => {
            wrong("mqtt_cert_file", cert, "holds a certificate that is none")
        }
        _ => wrong("mqtt_key_file", key, "a kind of key that is not supported"),
    }
}

fn written_at(path: Option<&Path>) -> Option<SystemTime> {
    std::fs::metadata(path?).ok()?.modified().ok()
}

/// The whole of a file, if it is one and not a large one (rule R6).
fn read(option: &str, path: &Path) -> Result<Vec<u8>, String> {
    // Before it is opened: opening a pipe waits for whoever writes to it.
    let metadata = std::fs::metadata(path).map_err(|error| file_text(option, path, &error))?;
    if !metadata.is_file() {
        return Err(wrong(option, path, "not a file"));
    }
    let mut text = Vec::new();
    File::open(path)
        .and_then(|file| file.take(MAX_FILE + 1).read_to_end(&mut text))
        .map_err(|error| file_text(option, path, &error))?;
    if text.len() as u64 > MAX_FILE {
        return Err(wrong(option, path, "larger than 1 MiB"));
    }
    Ok(text)
}

#[expect(clippy::wildcard_enum_match_arm, reason = "not our enum")]
fn file_text(option: &str, path: &Path, error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::NotFound => wrong(option, path, "no such file"),
        io::ErrorKind::PermissionDenied => wrong(option, path, "not readable for this user"),
        kind => wrong(option, path, &kind.to_string()),
    }
}

fn needs(option: &str, other: &str) -> String {
    format!("Option '{option}' needs '{other}' as well")
}

fn wrong(option: &str, path: &Path, what: &str) -> String {
    format!("Option '{option}': {}: {what}", path.display())
}

#[cfg(test)]
mod tests {
    use tokio_rustls::rustls::PeerIncompatible;

    use super::*;

    fn tls(with_ca: bool, with_cert: bool) -> Tls {
        let provider = Arc::new(ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(RootCertStore::empty())
            .with_no_client_auth();
        let path = || Some(PathBuf::from("/a.pem"));
        Tls {
            files: Files {
                ca: path().filter(|_| with_ca),
                cert: path().filter(|_| with_cert),
                key: path().filter(|_| with_cert),
            },
            written: Vec::new(),
            config: Arc::new(config),
        }
    }

    /// What comes of an error with a CA file, and a certificate of our own, or without.
    #[test]
    fn every_error_has_words_for_people() {
        use AlertDescription as Alert;
        use CertificateError as Bad;
        let wants = "the broker wants a client certificate (mqtt_cert_file, mqtt_key_file)";
        let refused = "the broker does not accept our certificate (mqtt_cert_file)";
        let clock = "or this computer's clock is wrong";
        for (with_ca, with_cert, error, text) in [
            (
                false,
                false,
                Bad::UnknownIssuer.into(),
                "name its CA in mqtt_ca_file",
            ),
            (
                true,
                false,
                Bad::UnknownIssuer.into(),
                "by the CA in mqtt_ca_file",
            ),
            (true, false, Bad::Expired.into(), clock),
            (true, false, Bad::NotValidYet.into(), clock),
            (true, false, Bad::Revoked.into(), "revoked"),
            (true, false, Bad::BadEncoding.into(), "not acceptable"),
            (
                true,
                false,
                Error::AlertReceived(Alert::CertificateRequired),
                wants,
            ),
            (
                true,
                true,
                Error::AlertReceived(Alert::CertificateRequired),
                refused,
            ),
            (true, true, Error::AlertReceived(Alert::UnknownCA), refused),
            (
                true,
                false,
                Error::AlertReceived(Alert::HandshakeFailure),
                "it may want a client certificate",
            ),
            (
                true,
                true,
                Error::AlertReceived(Alert::HandshakeFailure),
                "refuses",
            ),
            (
                true,
                true,
                Error::AlertReceived(Alert::ProtocolVersion),
                NOT_SAFE,
            ),
            (
                true,
                true,
                PeerIncompatible::NoCipherSuitesInCommon.into(),
                NOT_SAFE,
            ),
            (true, true, Error::DecryptError, "the encryption failed"),
        ] {
            let error = io::Error::new(io::ErrorKind::InvalidData, error);
            let words = tls(with_ca, with_cert).error_text(&error).unwrap();
            assert!(words.contains(text), "{error}: {words}");
        }
        let other = io::Error::from(io::ErrorKind::ConnectionReset);
        assert_eq!(tls(true, true).error_text(&other), None);
    }

    #[test]
    fn a_certificate_and_its_key_are_named_together() {
        let files = |cert: bool, key: bool| Files {
            ca: None,
            cert: cert.then(|| "/a.pem".into()),
            key: key.then(|| "/a.key".into()),
        };
        assert_eq!(
            Tls::load(files(true, false)).unwrap_err(),
            "Option 'mqtt_cert_file' needs 'mqtt_key_file' as well"
        );
        assert_eq!(
            Tls::load(files(false, true)).unwrap_err(),
            "Option 'mqtt_key_file' needs 'mqtt_cert_file' as well"
        );
    }
}
