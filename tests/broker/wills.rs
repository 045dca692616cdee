//! The last will: what the broker says of a client that is gone.

use _core::driver::mqtt::{Broker, Terms};

use crate::client::{Client, plain, publication, retained, terms, tls, with_password};
use crate::mosquitto::{Access, Mosquitto, mosquitto_or_skip};

/// A client that is missed.
fn missed() -> Terms {
    Terms {
        will: Some(retained("status", "offline")),
        ..terms("device", &[])
    }
}

fn offline() -> (String, String, bool) {
    ("status".into(), "offline".into(), false)
}

async fn both_ways_to_leave(mosquitto: &Mosquitto, broker: &Broker) {
    let listening = terms("witness", &["status", "sync/#"]);
    let mut witness = Client::try_connect(mosquitto, broker, &listening)
        .await
        .unwrap();

    let mut device = Client::try_connect(mosquitto, broker, &missed())
        .await
        .unwrap();
    device.connection.publish(&publication("status", "online"));
    assert_eq!(witness.message().await.1, "online");
    drop(device);
    assert_eq!(witness.message().await, offline());

    let mut device = Client::try_connect(mosquitto, broker, &missed())
        .await
        .unwrap();
    device.connection.publish(&publication("status", "bye"));
    device.connection.disconnect();
    drop(device);
    assert_eq!(witness.message().await.1, "bye");
    mosquitto.wait_log(|line| line.ends_with("Client device disconnected."));
    // The broker has seen it go; whatever it had to say about that would be here before this.
    witness.sync("gone").await;

    // As above, with something in the mail that was never read.
    let listening = Terms {
        subscriptions: vec!["flood".into()],
        ..missed()
    };
    let mut device = Client::try_connect(mosquitto, broker, &listening)
        .await
        .unwrap();
    for _ in 0..50 {
        witness
            .connection
            .publish(&publication("flood", vec![b'x'; 1000]));
    }
    witness.sync("flooded").await;
    device.connection.disconnect();
    drop(device);
    let mut last = Client::try_connect(mosquitto, broker, &missed())
        .await
        .unwrap();
    last.connection.publish(&publication("status", "back"));
    assert_eq!(witness.message().await.1, "back");
    last.connection.disconnect();
}

#[tokio::test]
async fn a_drop_is_missed_and_a_goodbye_is_not() {
    let Some(mosquitto) = mosquitto_or_skip(Access::Anonymous) else {
        return;
    };
    both_ways_to_leave(&mosquitto, &plain(&mosquitto)).await;
}

#[tokio::test]
async fn a_drop_is_missed_and_a_goodbye_is_not_with_tls() {
    let Some(mosquitto) = mosquitto_or_skip(Access::Tls) else {
        return;
    };
    let broker = Broker {
        tls: Some(tls("ca", None)),
        ..with_password(&mosquitto)
    };
    both_ways_to_leave(&mosquitto, &broker).await;
}

#[tokio::test]
async fn who_takes_over_a_client_id_is_let_in_after_the_will_of_the_one_before() {
    let Some(mosquitto) = mosquitto_or_skip(Access::Anonymous) else {
        return;
    };
    let mut witness = Client::connect(&mosquitto, &terms("witness", &["status"])).await;
    let mut first = Client::connect(&mosquitto, &missed()).await;
    let mut second = Client::connect(&mosquitto, &missed()).await;
    second.connection.publish(&publication("status", "online"));
    assert_eq!(witness.message().await, offline());
    assert_eq!(witness.message().await.1, "online");
    assert_eq!(first.end().await, "closed by the broker");
}
