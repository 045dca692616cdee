//! What is wrong with a file that a user named.

use std::path::{Path, PathBuf};

use _core::driver::mqtt::{Files, Tls};

use crate::mosquitto::{Certificates, missing_or_fail};

fn written(name: &str, text: &[u8]) -> PathBuf {
    let name = format!("{name}-{}", std::process::id());
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    std::fs::write(&path, text).unwrap();
    path
}

#[test]
#[expect(clippy::too_many_lines, reason = "a table")]
fn a_file_that_is_wrong_is_named_with_its_option() {
    if missing_or_fail() {
        return;
    }
    let good = Certificates::get();
    let ca = |path: &Path| Files {
        ca: Some(path.to_owned()),
        ..Files::default()
    };
    let own = |cert: &Path, key: &Path| Files {
        ca: Some(good.certificate("ca")),
        cert: Some(cert.to_owned()),
        key: Some(key.to_owned()),
    };
    let (cert, key) = (good.certificate("client"), good.key("client"));
    let nowhere = Path::new("/nowhere/at/all.pem");
    let folder = Path::new("/");
    let empty = written("empty", b"");
    let cut = written(
        "cut",
        b"-----BEGIN CERTIFICATE-----\nMIIB\n-----END NOTHING-----\n",
    );
    let none = written(
        "none",
        b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
    );
    let large = written("large", &vec![b'\n'; 1024 * 1024 + 1]);
    let locked = written(
        "locked",
        b"-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n",
    );
    let other = good.key("server");

    for (files, option, path, what) in [
        (ca(nowhere), "mqtt_ca_file", nowhere, "no such file"),
        (ca(folder), "mqtt_ca_file", folder, "not a file"),
        (
            ca(Path::new("/dev/zero")),
            "mqtt_ca_file",
            Path::new("/dev/zero"),
            "not a file",
        ),
        (
            ca(&empty),
            "mqtt_ca_file",
            &empty,
            "holds no certificate in PEM form",
        ),
        (
            ca(&key),
            "mqtt_ca_file",
            &key,
            "holds no certificate in PEM form",
        ),
        (ca(&cut), "mqtt_ca_file", &cut, "damaged"),
        (
            ca(&none),
            "mqtt_ca_file",
            &none,
            "holds a certificate that is none",
        ),
        (ca(&large), "mqtt_ca_file", &large, "larger than 1 MiB"),
        (
            own(nowhere, &key),
            "mqtt_cert_file",
            nowhere,
            "no such file",
        ),
        (
            own(&key, &key),
            "mqtt_cert_file",
            &key,
            "holds no certificate in PEM form",
        ),
        (
            own(&none, &key),
            "mqtt_cert_file",
            &none,
            "holds a certificate that is none",
        ),
        (
            own(&cert, nowhere),
            "mqtt_key_file",
            nowhere,
            "no such file",
        ),
        (
            own(&cert, &cert),
            "mqtt_key_file",
            &cert,
            "holds no private key in PEM form",
        ),
        (
            own(&cert, &locked),
            "mqtt_key_file",
            &locked,
            "holds a key with a passphrase; it must be without one",
        ),
        (
            own(&cert, &other),
            "mqtt_key_file",
            &other,
            &format!("not the key of the certificate in {}", cert.display()),
        ),
    ] {
        let expected = format!("Option '{option}': {}: {what}", path.display());
        assert_eq!(Tls::load(files).unwrap_err(), expected);
    }
    for path in [empty, cut, none, large, locked] {
        std::fs::remove_file(path).unwrap();
    }
}

#[test]
fn files_that_are_right_are_the_same_each_time() {
    if missing_or_fail() {
        return;
    }
    let good = Certificates::get();
    let client = Files {
        ca: Some(good.certificate("ca")),
        cert: Some(good.certificate("client")),
        key: Some(good.key("client")),
    };
    let loaded = Tls::load(client.clone()).unwrap();
    assert_eq!(loaded, Tls::load(client).unwrap());
    let other = Files {
        ca: Some(good.certificate("ca")),
        ..Files::default()
    };
    assert_ne!(loaded, Tls::load(other).unwrap());
}
