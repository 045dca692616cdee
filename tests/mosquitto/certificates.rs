//! Certificates for brokers and clients, made with the `openssl` command.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use super::run;

/// Certificates and keys by name:
///
/// * `ca`: the private authority that everything else is signed by
/// * `server`: for localhost and 127.0.0.1
/// * `elsewhere`: for another host
/// * `expired`: for localhost and 127.0.0.1, valid in 2001
/// * `client`: a client of that authority
/// * `other-ca`: another authority
/// * `other-client`: a client of the other one
pub(crate) struct Certificates {
    folder: PathBuf,
}

const LOCAL: &str = "subjectAltName=DNS:localhost,IP:127.0.0.1\nextendedKeyUsage=serverAuth\n";
const REMOTE: &str = "subjectAltName=DNS:elsewhere.test\nextendedKeyUsage=serverAuth\n";
const CLIENT: &str = "extendedKeyUsage=clientAuth\n";

impl Certificates {
    /// Made once, and kept among the build's files.
    #[track_caller]
    pub(crate) fn get() -> &'static Self {
        static MADE: OnceLock<Certificates> = OnceLock::new();
        MADE.get_or_init(|| {
            let target = Path::new(env!("CARGO_TARGET_TMPDIR"));
            let folder = target.join("certificates-1");
            if !folder.exists() {
                let draft = Self {
                    folder: target.join(format!("certificates-{}", std::process::id())),
                };
                draft.make();
                // Another process may have been faster.
                if std::fs::rename(&draft.folder, &folder).is_err() {
                    let _ = std::fs::remove_dir_all(&draft.folder);
                }
            }
            Self { folder }
        })
    }

    /// The file of a certificate.
    pub(crate) fn certificate(&self, name: &str) -> PathBuf {
        self.folder.join(format!("{name}.pem"))
    }

    /// The file of its private key.
    pub(crate) fn key(&self, name: &str) -> PathBuf {
        self.folder.join(format!("{name}.key"))
    }

    fn make(&self) {
        std::fs::create_dir_all(&self.folder).unwrap();
        self.make_ca("ca");
        self.make_ca("other-ca");
        self.make_signed("server", "ca", LOCAL);
        self.make_signed("elsewhere", "ca", REMOTE);
        self.make_signed("expired", "ca", LOCAL);
        self.make_signed("client", "ca", CLIENT);
        self.make_signed("other-client", "other-ca", CLIENT);
        self.make_expired("expired");
    }

    fn openssl(&self, command: &str) -> Command {
        let mut openssl = Command::new("openssl");
        openssl
            .current_dir(&self.folder)
            .args(command.split_whitespace());
        openssl
    }

    fn make_ca(&self, name: &str) {
        run(&mut self.openssl(&format!(
            "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 3650 \
             -subj /CN={name} -addext basicConstraints=critical,CA:TRUE \
             -addext keyUsage=critical,keyCertSign,cRLSign -keyout {name}.key -out {name}.pem"
        )));
    }

    fn make_signed(&self, name: &str, ca: &str, extensions: &str) {
        let extensions = format!("{extensions}basicConstraints=CA:FALSE\n");
        std::fs::write(self.folder.join(format!("{name}.ext")), extensions).unwrap();
        run(&mut self.openssl(&format!(
            "req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN={name} \
             -keyout {name}.key -out {name}.csr"
        )));
        run(&mut self.openssl(&format!(
            "x509 -req -in {name}.csr -CA {ca}.pem -CAkey {ca}.key -CAcreateserial -days 3650 \
             -extfile {name}.ext -out {name}.pem"
        )));
    }

    /// Signs it once more, for a time that is over; only this command can say which.
    fn make_expired(&self, name: &str) {
        std::fs::write(self.folder.join("index.txt"), "").unwrap();
        std::fs::write(
            self.folder.join("ca.conf"),
            "[ca]\ndefault_ca=ca\n[ca_ca]\n[ca]\ndatabase=index.txt\nnew_certs_dir=.\n\
             default_md=sha256\npolicy=any\nrand_serial=yes\n[any]\ncommonName=supplied\n",
        )
        .unwrap();
        run(&mut self.openssl(&format!(
            "ca -batch -config ca.conf -name ca -cert ca.pem -keyfile ca.key -notext \
             -startdate 20010101000000Z -enddate 20010201000000Z \
             -extfile {name}.ext -in {name}.csr -out {name}.pem"
        )));
    }
}
