//! What comes in, what goes out, and what does neither.

use std::fs::File;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use _core::driver::mqtt::{Broker, Incoming};
use tokio::time::{Instant, sleep};

use crate::client::{Client, publication, retained, terms, tls, with_password};
use crate::mosquitto::{Access, Certificates, Options, PASSWORD, USERNAME, mosquitto_or_skip};

#[tokio::test]
async fn history_is_told_from_news() {
    let Some(mosquitto) = mosquitto_or_skip(Access::Anonymous) else {
        return;
    };
    let mut device = Client::connect(&mosquitto, &terms("device", &["sync/#"])).await;
    device.connection.publish(&retained("state", "old"));
    device.sync("old").await;
    let mut client = Client::connect(&mosquitto, &terms("client", &["state"])).await;
    let message = |payload: &str, kept| ("state".to_owned(), payload.to_owned(), kept);
    assert_eq!(client.message().await, message("old", true));
    // What is retained from now on is news to whoever listens already.
    device.connection.publish(&retained("state", "new"));
    assert_eq!(client.message().await, message("new", false));
    device.connection.publish(&publication("state", "newer"));
    assert_eq!(client.message().await, message("newer", false));
}

#[tokio::test]
async fn r6_a_megabyte_that_is_retained_is_survived() {
    for access in [Access::Password, Access::Tls] {
        let Some(mosquitto) = mosquitto_or_skip(access) else {
            return;
        };
        let broker = Broker {
            tls: (access == Access::Tls).then(|| tls("ca", None)),
            ..with_password(&mosquitto)
        };
        let mut publisher = Command::new("mosquitto_pub");
        publisher
            .args(["-h", "127.0.0.1", "-p", &broker.port.to_string()])
            .args(["-u", USERNAME, "-P", PASSWORD])
            .args(["-q", "1", "-r", "-t", "large/one", "-s"]);
        if access == Access::Tls {
            publisher.arg("--cafile");
            publisher.arg(Certificates::get().certificate("ca"));
        }
        let sent = publisher.stdin(megabyte(access)).status().unwrap();
        assert!(sent.success());
        // Every connection has it in its way.
        for _ in 0..2 {
            let listening = terms("client", &["large/#", "sync/#"]);
            let mut client = Client::try_connect(&mosquitto, &broker, &listening)
                .await
                .unwrap();
            assert_eq!(client.next().await, Incoming::Unreadable);
            client.sync("after").await;
        }
    }
}

/// A file with a megabyte that is not all the same.
fn megabyte(access: Access) -> File {
    let name = format!("megabyte-{access:?}-{}", std::process::id());
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    let bytes: Vec<u8> = (0..1024 * 256_u32).flat_map(u32::to_le_bytes).collect();
    std::fs::write(&path, bytes).unwrap();
    let file = File::open(&path).unwrap();
    std::fs::remove_file(path).unwrap();
    file
}

#[tokio::test]
async fn a_burst_arrives_as_a_whole() {
    let Some(mosquitto) = mosquitto_or_skip(Access::Tls) else {
        return;
    };
    let broker = Broker {
        tls: Some(tls("ca", None)),
        ..with_password(&mosquitto)
    };
    let mut client = Client::try_connect(&mosquitto, &broker, &terms("client", &["burst/#"]))
        .await
        .unwrap();
    let mut device = Client::try_connect(&mosquitto, &broker, &terms("device", &[]))
        .await
        .unwrap();
    for n in 0..200_u32 {
        let topic = format!("burst/{n}");
        device
            .connection
            .publish(&publication(&topic, vec![b'x'; 97]));
    }
    for n in 0..200_u32 {
        let (topic, payload, _) = client.message().await;
        assert_eq!((topic, payload.len()), (format!("burst/{n}"), 97));
    }
}

/// Several records of TLS each, and more than is read at once.
#[tokio::test]
async fn large_messages_arrive_as_they_were() {
    for access in [Access::Password, Access::Tls] {
        let Some(mosquitto) = mosquitto_or_skip(access) else {
            return;
        };
        let broker = Broker {
            tls: (access == Access::Tls).then(|| tls("ca", None)),
            ..with_password(&mosquitto)
        };
        let mut client = Client::try_connect(&mosquitto, &broker, &terms("client", &["large"]))
            .await
            .unwrap();
        for length in [4_000, 16_384, 20_000, 65_000, 65_529, 3] {
            let payload: String = ('a'..='z').cycle().take(length).collect();
            client.connection.publish(&publication("large", &*payload));
            let (_, heard, _) = client.message().await;
            assert!(heard == payload, "{length} bytes");
        }
    }
}

#[tokio::test]
async fn a_session_that_the_broker_kept_is_taken_up() {
    let Some(mosquitto) = mosquitto_or_skip(Access::Anonymous) else {
        return;
    };
    // Another program with our client id wanted more than we do.
    let port = mosquitto.address.port().to_string();
    let at = ["-h", "127.0.0.1", "-p", &port];
    let subscribed = Command::new("mosquitto_sub")
        .args(at)
        .args(["-i", "client", "-c", "-q", "2", "-t", "kept/#", "-E"])
        .status()
        .unwrap();
    assert!(subscribed.success());
    for (quality, payload) in [("1", "one"), ("2", "two")] {
        let sent = Command::new("mosquitto_pub")
            .args(at)
            .args(["-q", quality, "-t", "kept/it", "-m", payload])
            .status()
            .unwrap();
        assert!(sent.success());
    }
    let mut listening = terms("client", &["sync/#"]);
    listening.clean_session = false;
    let mut client = Client::connect(&mosquitto, &listening).await;
    for payload in ["one", "two"] {
        let message = ("kept/it".to_owned(), payload.to_owned(), false);
        assert_eq!(client.message().await, message);
    }
    client.sync("kept").await;
    client.connection.disconnect();
    drop(client);
    // They were acknowledged.
    let mut client = Client::connect(&mosquitto, &listening).await;
    client.connection.publish(&publication("sync/again", "now"));
    assert_eq!(client.message().await.0, "sync/again");
}

#[tokio::test]
async fn a_broker_that_ends_is_noticed_and_found_again() {
    for persistent in [false, true] {
        let Some(mut mosquitto) = mosquitto_or_skip(Options {
            persistent,
            ..Options::default()
        }) else {
            return;
        };
        let listening = terms("client", &["state", "sync/#"]);
        let mut client = Client::connect(&mosquitto, &listening).await;
        client.connection.publish(&retained("state", "kept"));
        assert_eq!(client.message().await.1, "kept");
        mosquitto.restart();
        assert_eq!(client.end().await, "closed by the broker");
        let mut client = Client::connect(&mosquitto, &listening).await;
        if persistent {
            let message = ("state".to_owned(), "kept".to_owned(), true);
            assert_eq!(client.message().await, message);
        }
        client.sync("again").await;
        mosquitto.kill();
        client.end().await;
    }
}

/// The only test here that takes its time: the broker's silence is real.
#[tokio::test]
async fn a_frozen_broker_is_noticed_within_ten_seconds() {
    let Some(mosquitto) = mosquitto_or_skip(Access::Anonymous) else {
        return;
    };
    let mut quiet = Client::connect(&mosquitto, &terms("quiet", &[])).await;
    let mut busy = Client::connect(&mosquitto, &terms("busy", &["busy"])).await;
    // Long enough that both have asked once, and were answered.
    for _ in 0..28 {
        sleep(Duration::from_millis(200)).await;
        busy.connection.publish(&publication("busy", "as ever"));
        assert_eq!(busy.message().await.1, "as ever");
        assert_eq!(quiet.connection.take(), None);
        tokio::select! {
            biased;
            incoming = quiet.next() => panic!("{incoming:?}"),
            () = std::future::ready(()) => {}
        }
    }
    mosquitto.freeze();
    let frozen = Instant::now();
    let talking = async {
        loop {
            tokio::select! {
                why = busy.end() => return why,
                () = sleep(Duration::from_millis(200)) => {}
            }
            busy.connection.publish(&publication("busy", "as ever"));
        }
    };
    let (why, other) = tokio::join!(quiet.end(), talking);
    let took = frozen.elapsed();
    assert_eq!(why, "the broker does not answer");
    assert_eq!(other, why, "and talking to it is no sign of life");
    assert!(took <= Duration::from_secs(10), "{took:?}");
}

#[tokio::test]
async fn a_broker_that_only_stumbles_is_kept() {
    let Some(mosquitto) = mosquitto_or_skip(Access::Anonymous) else {
        return;
    };
    let mut client = Client::connect(&mosquitto, &terms("client", &["state"])).await;
    mosquitto.freeze();
    client.connection.publish(&publication("state", "slow"));
    assert_eq!(client.connection.take(), None);
    mosquitto.thaw();
    assert_eq!(client.message().await.1, "slow");
}
