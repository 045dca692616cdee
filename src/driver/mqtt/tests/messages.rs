//! What comes in and what goes out, how it is cut and how it ends.

use super::*;

#[tokio::test]
async fn r6_what_is_too_large_or_no_text_is_passed_over() {
    let (mut connection, mut peer) = open().await;
    let large = message("one", &"x".repeat(1024 * 1024));
    let said = async {
        peer.say(&large).await;
        peer.say(b"\x30\x04\x00\x02\xff\xfe").await;
        peer.say(&message("one", "after")).await;
    };
    let heard = async {
        [
            next(&mut connection).await,
            next(&mut connection).await,
            next(&mut connection).await,
        ]
    };
    let ((), heard) = tokio::join!(said, heard);
    let unreadable = Incoming::Unreadable;
    assert_eq!(
        heard,
        [unreadable, Incoming::Unreadable, incoming("one", "after")]
    );
}

#[tokio::test]
async fn what_came_before_the_end_is_not_lost() {
    for (last, why) in [(&b""[..], "closed by the broker"), (b"\x10\x00", NOT_MQTT)] {
        let (mut connection, mut peer) = open().await;
        peer.say(&[&message("one", "last"), last].concat()).await;
        drop(peer);
        assert_eq!(next(&mut connection).await, incoming("one", "last"));
        assert_eq!(next(&mut connection).await, ended(why));
        assert_eq!(glance(&mut connection), Poll::Ready(()));
        assert_eq!(connection.take(), Some(ended(why)), "and it stays so");
    }
}

#[tokio::test]
async fn nothing_is_lost_when_nobody_waits_any_more() {
    let (mut connection, mut peer) = open().await;
    for byte in message("one", "slowly") {
        assert_eq!(connection.take(), None);
        let waiting = poll_fn(|cx| connection.poll_ready(cx));
        let _ = timeout(Duration::ZERO, waiting).await;
        peer.say(&[byte]).await;
        tokio::task::yield_now().await;
    }
    assert_eq!(next(&mut connection).await, incoming("one", "slowly"));
}

#[tokio::test]
async fn a_higher_quality_of_service_is_acknowledged() {
    let (mut connection, mut peer) = open().await;
    for (quality, id) in [(QoS::AtLeastOnce, 7), (QoS::ExactlyOnce, 8)] {
        let mut kept = Publish::new("one", quality, "kept");
        kept.pkid = id;
        peer.say(&written(&Packet::Publish(kept))).await;
        assert_eq!(next(&mut connection).await, incoming("one", "kept"));
    }
    assert_eq!(peer.hear().await, Some(Packet::PubAck(PubAck::new(7))),);
    assert!(matches!(peer.hear().await, Some(Packet::PubRec(answer)) if answer.pkid == 8));
    peer.say(&written(&Packet::PubRel(PubRel::new(8)))).await;
    let (incoming, heard) = tokio::join!(
        timeout(Duration::from_millis(1), next(&mut connection)),
        async { peer.hear().await }
    );
    assert!(incoming.is_err(), "it is no message");
    assert!(matches!(heard, Some(Packet::PubComp(answer)) if answer.pkid == 8));
}

#[tokio::test]
async fn what_is_published_is_in_the_kernel_at_once() {
    let (mut connection, mut peer) = open().await;
    connection.publish(&publication("two/a", "now"));
    // Nobody polls the connection.
    let Some(Packet::Publish(heard)) = peer.hear().await else {
        panic!("nothing");
    };
    assert_eq!((&*heard.topic, &*heard.payload), ("two/a", &b"now"[..]));
    assert_eq!((heard.qos, heard.retain), (QoS::AtMostOnce, false));
    connection.publish(&Publication {
        retain: true,
        ..publication("two/a", "kept")
    });
    assert!(matches!(peer.hear().await, Some(Packet::Publish(heard)) if heard.retain));
}

#[tokio::test]
async fn what_the_kernel_does_not_take_is_sent_later_and_in_order() {
    // Any question in between would take along what is waiting.
    let (mut connection, mut peer) = open_with(&Terms {
        keep_alive: 10 * LIMIT,
        ..terms()
    })
    .await;
    let mut sent = 0_u32;
    while connection.wire_is_flushed() {
        connection.publish(&publication("count", sent.to_string().repeat(1000)));
        sent += 1;
    }
    for expected in 0..sent {
        let heard = tokio::select! {
            heard = timeout(LIMIT, peer.hear()) => heard.expect("it is not sent"),
            incoming = next(&mut connection) => panic!("{incoming:?}"),
        };
        let Some(Packet::Publish(heard)) = heard else {
            panic!("{heard:?}");
        };
        assert_eq!(heard.payload, expected.to_string().repeat(1000));
    }
    assert!(connection.wire_is_flushed());
}

#[tokio::test]
async fn r6_a_broker_that_does_not_read_is_left() {
    let (mut connection, _peer) = open().await;
    let mut sent = 0;
    let why = loop {
        connection.publish(&publication("flood", vec![b'x'; 1000]));
        sent += 1;
        assert!(sent < 100_000, "where does all that go?");
        if let Some(incoming) = connection.take() {
            break incoming;
        }
    };
    assert_eq!(why, ended("the broker does not read what it is sent"));
}

#[tokio::test]
async fn r4_a_drop_resets_and_a_goodbye_arrives() {
    let (mut connection, mut peer) = open().await;
    peer.say(&message("one", "never read")).await;
    connection.publish(&publication("status", "bye"));
    connection.disconnect();
    connection.publish(&publication("status", "not any more"));
    assert_eq!(connection.take(), Some(ended("closed")));
    drop(connection);
    assert!(matches!(peer.hear().await, Some(Packet::Publish(_))));
    assert_eq!(peer.hear().await, Some(Packet::Disconnect));
    assert_eq!(peer.hear().await, None, "an end in order");

    let (connection, mut peer) = open().await;
    drop(connection);
    let error = peer.stream.read_u8().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);

    let (client, mut peer) = pair().await;
    let (broker, terms) = (broker(), terms());
    {
        let shaking = Connection::handshake(client, &broker, &terms);
        let mut shaking = std::pin::pin!(shaking);
        let polled = poll_fn(|cx| Poll::Ready(shaking.as_mut().poll(cx))).await;
        assert!(polled.is_pending());
    }
    let error = peer.stream.read_to_end(&mut vec![]).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
}
