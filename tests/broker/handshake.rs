//! Getting in, and being told why not.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use _core::driver::mqtt::{Broker, Connection, Files, Terms, Tls};
use tokio::io::copy;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::client::{Client, login, open, plain, publication, terms, tls, with_password};
use crate::mosquitto::{Access, Mosquitto, Options, mosquitto_or_skip};

/// A message goes there and back.
async fn works(mosquitto: &Mosquitto, broker: &Broker) {
    let terms = terms("one", &["there", "and/+"]);
    let mut client = Client::try_connect(mosquitto, broker, &terms)
        .await
        .unwrap();
    assert_eq!(client.connection.address(), mosquitto.address);
    client.connection.publish(&publication("and/back", "again"));
    assert_eq!(
        client.message().await,
        ("and/back".to_owned(), "again".to_owned(), false)
    );
}

async fn error(mosquitto: &Mosquitto, broker: &Broker) -> String {
    error_for(mosquitto, broker, &terms("one", &["there"])).await
}

async fn error_for(mosquitto: &Mosquitto, broker: &Broker, terms: &Terms) -> String {
    match Client::try_connect(mosquitto, broker, terms).await {
        Err(error) => error,
        Ok(_) => panic!("it was let in"),
    }
}

#[tokio::test]
async fn everybody_is_let_in_where_nobody_is_asked() {
    let Some(mosquitto) = mosquitto_or_skip(Access::Anonymous) else {
        return;
    };
    works(&mosquitto, &plain(&mosquitto)).await;
}

#[tokio::test]
async fn the_password_lets_in_and_nothing_else_does() {
    let Some(mosquitto) = mosquitto_or_skip(Access::Password) else {
        return;
    };
    works(&mosquitto, &with_password(&mosquitto)).await;
    let wrong = Broker {
        login: Some(login("a wrong one")),
        ..plain(&mosquitto)
    };
    assert_eq!(
        error(&mosquitto, &wrong).await,
        "the broker refuses this user name or password (mqtt_username, mqtt_password_file)"
    );
    assert_eq!(
        error(&mosquitto, &plain(&mosquitto)).await,
        "the broker wants a user name and password (mqtt_username, mqtt_password_file)"
    );
}

#[tokio::test]
async fn a_broker_with_tls_is_known_by_its_certificate() {
    let Some(mosquitto) = mosquitto_or_skip(Access::Tls) else {
        return;
    };
    let believing = |ca| Broker {
        tls: Some(tls(ca, None)),
        ..with_password(&mosquitto)
    };
    works(&mosquitto, &believing("ca")).await;
    for host in ["localhost", "LOCALHOST", "localhost."] {
        let by_name = Broker {
            host: host.into(),
            ..believing("ca")
        };
        works(&mosquitto, &by_name).await;
    }
    assert_eq!(
        error(&mosquitto, &believing("other-ca")).await,
        "the broker's certificate is not signed by the CA in mqtt_ca_file"
    );
    let without_login = Broker {
        login: None,
        ..believing("ca")
    };
    assert_eq!(
        error(&mosquitto, &without_login).await,
        "the broker wants a user name and password (mqtt_username, mqtt_password_file)"
    );
    for host in ["elsewhere.test", "127.0.0.2", "::1"] {
        let elsewhere = Broker {
            host: host.into(),
            ..believing("ca")
        };
        assert_eq!(
            error(&mosquitto, &elsewhere).await,
            format!("the broker's certificate is not for '{host}'")
        );
    }
    let nameless = Broker {
        host: "no name".into(),
        ..believing("ca")
    };
    assert_eq!(
        error(&mosquitto, &nameless).await,
        "'no name' is no name that a certificate can be for"
    );
}

#[tokio::test]
async fn a_broker_that_only_the_system_could_vouch_for_is_not_believed() {
    let Some(mosquitto) = mosquitto_or_skip(Access::Tls) else {
        return;
    };
    let Ok(tls) = Tls::load(Files::default()) else {
        return; // a system without any authority has nobody who could
    };
    let broker = Broker {
        tls: Some(tls),
        ..with_password(&mosquitto)
    };
    assert_eq!(
        error(&mosquitto, &broker).await,
        "the broker's certificate is signed by nobody known; name its CA in mqtt_ca_file"
    );
}

#[tokio::test]
async fn a_certificate_for_another_host_or_time_is_said_to_be_that() {
    let with = |certificate| Options {
        certificate,
        ..Access::Tls.into()
    };
    let Some(elsewhere) = mosquitto_or_skip(with("elsewhere")) else {
        return;
    };
    let broker = |mosquitto: &Mosquitto| Broker {
        tls: Some(tls("ca", None)),
        ..with_password(mosquitto)
    };
    assert_eq!(
        error(&elsewhere, &broker(&elsewhere)).await,
        "the broker's certificate is not for '127.0.0.1'"
    );
    let Some(expired) = mosquitto_or_skip(with("expired")) else {
        return;
    };
    assert_eq!(
        error(&expired, &broker(&expired)).await,
        "the broker's certificate has expired, or this computer's clock is wrong"
    );
}

#[tokio::test]
async fn a_port_of_the_other_kind_is_said_to_be_that() {
    let Some(mosquitto) = mosquitto_or_skip(Access::Anonymous) else {
        return;
    };
    let encrypting = Broker {
        tls: Some(tls("ca", None)),
        ..plain(&mosquitto)
    };
    assert_eq!(
        error(&mosquitto, &encrypting).await,
        "the broker does not speak TLS on this port (mqtt_port, mqtt_tls)"
    );
    let Some(mosquitto) = mosquitto_or_skip(Access::Tls) else {
        return;
    };
    assert_eq!(
        error(&mosquitto, &with_password(&mosquitto)).await,
        "closed by the broker"
    );
    // Where the section says so; this one listens elsewhere.
    let usual = Broker {
        port: 8883,
        ..with_password(&mosquitto)
    };
    assert_eq!(
        error(&mosquitto, &usual).await,
        "closed by the broker; port 8883 usually is for TLS (mqtt_tls: True)"
    );
}

/// With TLS 1.3 the handshake is long over when the broker says what it thinks of a certificate.
#[tokio::test]
async fn a_client_certificate_lets_in_and_nothing_else_does() {
    let Some(mosquitto) = mosquitto_or_skip(Access::ClientCertificate) else {
        return;
    };
    let with = |client| Broker {
        tls: Some(tls("ca", client)),
        ..plain(&mosquitto)
    };
    works(&mosquitto, &with(Some("client"))).await;
    assert_eq!(
        error(&mosquitto, &with(None)).await,
        "the broker wants a client certificate (mqtt_cert_file, mqtt_key_file)"
    );
    assert_eq!(
        error(&mosquitto, &with(Some("other-client"))).await,
        "the broker does not accept our certificate (mqtt_cert_file)"
    );
}

/// What mosquitto's plugin for access rules answers. With a plain `acl_file` it grants every
/// filter, and keeps the messages to itself.
#[tokio::test]
async fn a_filter_that_may_not_be_read_is_named() {
    let Some(plugin) = dynamic_security() else {
        return;
    };
    let rules = Path::new(env!("CARGO_TARGET_TMPDIR")).join("rules.json");
    std::fs::write(&rules, RULES).unwrap();
    let Some(mosquitto) = mosquitto_or_skip(Options {
        extra: format!(
            "plugin {}\nplugin_opt_config_file {}\n",
            plugin.display(),
            rules.display()
        ),
        ..Options::default()
    }) else {
        return;
    };
    let mut terms = terms("one", &["allowed", "not/allowed", "allowed"]);
    let text = error_for(&mosquitto, &plain(&mosquitto), &terms).await;
    assert_eq!(
        text,
        "the broker does not allow to read not/allowed; check its access rules"
    );
    terms.subscriptions.remove(1);
    assert!(
        Client::try_connect(&mosquitto, &plain(&mosquitto), &terms)
            .await
            .is_ok()
    );
}

const RULES: &str = r#"{
    "defaultACLAccess": {"publishClientSend": true, "publishClientReceive": true,
        "subscribe": false, "unsubscribe": true},
    "anonymousGroup": "all",
    "groups": [{"groupname": "all", "roles": [{"rolename": "reader"}]}],
    "roles": [{"rolename": "reader", "acls":
        [{"acltype": "subscribePattern", "topic": "allowed", "allow": true}]}]
}"#;

/// Comes with mosquitto, at a place that differs.
fn dynamic_security() -> Option<PathBuf> {
    [
        "x86_64-linux-gnu",
        "aarch64-linux-gnu",
        "arm-linux-gnueabihf",
        ".",
    ]
    .iter()
    .flat_map(|kind| {
        [
            format!("/usr/lib/{kind}"),
            format!("/usr/lib/{kind}/mosquitto"),
        ]
    })
    .map(|folder| Path::new(&folder).join("mosquitto_dynamic_security.so"))
    .find(|plugin| plugin.is_file())
}

/// A broker that is met through this sees nothing of it, and we see how our side ends.
async fn relay(mosquitto: &Mosquitto) -> (TcpStream, JoinHandle<io::Result<u64>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (client, server) = tokio::join!(open(listener.local_addr().unwrap()), listener.accept());
    let (mut from_client, mut to_client) = server.unwrap().0.into_split();
    let (mut from_broker, mut to_broker) = open(mosquitto.address).await.into_split();
    tokio::spawn(async move { copy(&mut from_broker, &mut to_client).await });
    let ended = tokio::spawn(async move { copy(&mut from_client, &mut to_broker).await });
    (client, ended)
}

#[tokio::test]
async fn r4_a_drop_resets_the_connection_with_tls_as_well() {
    let Some(mosquitto) = mosquitto_or_skip(Access::Tls) else {
        return;
    };
    let broker = Broker {
        tls: Some(tls("ca", None)),
        ..with_password(&mosquitto)
    };
    let terms = terms("one", &["there"]);
    let (stream, ended) = relay(&mosquitto).await;
    let connection = Connection::handshake(stream, &broker, &terms).await;
    drop(connection.unwrap());
    let error = ended.await.unwrap().unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);

    let (stream, ended) = relay(&mosquitto).await;
    let mut connection = Connection::handshake(stream, &broker, &terms)
        .await
        .unwrap();
    connection.disconnect();
    drop(connection);
    assert!(
        ended.await.unwrap().is_ok(),
        "after a goodbye it ends in order"
    );

    mosquitto.freeze();
    let (stream, ended) = relay(&mosquitto).await;
    let shaking = Connection::handshake(stream, &broker, &terms);
    assert!(timeout(Duration::from_millis(50), shaking).await.is_err());
    let error = ended.await.unwrap().unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
}
