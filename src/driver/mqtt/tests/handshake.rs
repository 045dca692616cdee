//! Getting in, and being told why not.

use super::*;

#[tokio::test]
async fn the_handshake_says_what_was_asked_for() {
    let (client, mut peer) = pair().await;
    let broker = Broker {
        login: Some(Login {
            username: "me".into(),
            password: "secret".into(),
        }),
        ..broker()
    };
    let terms = Terms {
        keep_alive: Duration::from_millis(4500),
        clean_session: false,
        will: Some(Publication {
            topic: "status".into(),
            payload: b"gone".to_vec(),
            retain: true,
        }),
        ..terms()
    };
    let (connection, (connect, subscribe)) = tokio::join!(
        Connection::handshake(client, &broker, &terms),
        peer.answer(&[], &[])
    );
    let Packet::Connect(connect) = connect else {
        panic!("{connect:?}");
    };
    assert_eq!(connect.client_id, "klipper");
    assert_eq!(connect.keep_alive, 5, "never less than what is kept");
    assert!(!connect.clean_session);
    let login = connect.login.unwrap();
    assert_eq!((&*login.username, &*login.password), ("me", "secret"));
    let will = connect.last_will.unwrap();
    assert_eq!((&*will.topic, &*will.message), ("status", &b"gone"[..]));
    assert_eq!((will.qos, will.retain), (QoS::AtMostOnce, true));
    let Packet::Subscribe(subscribe) = subscribe else {
        panic!("{subscribe:?}");
    };
    let filters: Vec<_> = subscribe
        .filters
        .iter()
        .map(|f| (&*f.path, f.qos))
        .collect();
    let at_most_once = QoS::AtMostOnce;
    assert_eq!(filters, [("one", at_most_once), ("two/+", at_most_once)]);

    let connection = connection.unwrap();
    assert_eq!(connection.address(), peer.stream.local_addr().unwrap());
    let shown = format!("{connection:?} {broker:?}");
    assert!(!shown.contains("secret"), "R11: {shown}");
}

#[tokio::test]
async fn a_handshake_may_come_in_any_pieces_and_with_messages_around_it() {
    let early = [message("one", "kept"), message("two/a", "")].concat();
    let late = [message("one", "a"), message("one", "b")].concat();
    let all = [accepted(), early, granted(2), late].concat();
    for cut in [1, 2, 3, 7, all.len()] {
        let (client, mut peer) = pair().await;
        let (broker, terms) = (broker(), terms());
        let said = async {
            for piece in all.chunks(cut) {
                peer.say(piece).await;
                tokio::task::yield_now().await;
            }
        };
        let (connection, ()) = tokio::join!(Connection::handshake(client, &broker, &terms), said);
        let mut connection = connection.unwrap();
        for (topic, payload) in [("one", "kept"), ("two/a", ""), ("one", "a"), ("one", "b")] {
            assert_eq!(next(&mut connection).await, incoming(topic, payload));
        }
        assert_eq!(connection.take(), None);
    }
}

#[tokio::test]
async fn a_refusal_says_what_to_do() {
    let anonymous = broker();
    let known = Broker {
        login: Some(Login {
            username: "me".into(),
            password: "secret".into(),
        }),
        ..broker()
    };
    let wants = "the broker wants a user name and password (mqtt_username, mqtt_password_file)";
    let refuses =
        "the broker refuses this user name or password (mqtt_username, mqtt_password_file)";
    for (broker, code, text) in [
        (&anonymous, ConnectReturnCode::BadUserNamePassword, wants),
        (&anonymous, ConnectReturnCode::NotAuthorized, wants),
        (&known, ConnectReturnCode::BadUserNamePassword, refuses),
        (&known, ConnectReturnCode::NotAuthorized, refuses),
        (
            &known,
            ConnectReturnCode::BadClientId,
            "the broker refuses our client id",
        ),
        (
            &known,
            ConnectReturnCode::ServiceUnavailable,
            "the broker is not available",
        ),
        (
            &known,
            ConnectReturnCode::RefusedProtocolVersion,
            "the broker does not speak MQTT 3.1.1",
        ),
    ] {
        let result = handshake_with(broker, &answered(code)).await;
        assert_eq!(result.unwrap_err(), text);
    }
}

#[tokio::test]
async fn what_is_no_broker_is_called_that() {
    let wants_tls = "the broker wants TLS on this port (mqtt_tls: True)";
    for (answer, text) in [
        (&b""[..], "closed by the broker"),
        (b"\x20", "closed by the broker"),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", NOT_A_BROKER),
        (b"S", NOT_A_BROKER),
        (b"\x20\x02\x00\x06", NOT_A_BROKER),
        (b"\xd0\x00", NOT_A_BROKER),
        (b"\x30\x03\x00\x01t", NOT_A_BROKER),
        (b"\x15\x03\x01\x00\x02\x02\x46", wants_tls),
    ] {
        let result = handshake_with(&broker(), answer).await;
        assert_eq!(result.unwrap_err(), text, "{answer:02x?}");
    }
    let usual = Broker {
        port: 8883,
        ..broker()
    };
    assert_eq!(
        handshake_with(&usual, b"").await.unwrap_err(),
        "closed by the broker; port 8883 usually is for TLS (mqtt_tls: True)"
    );
}

#[tokio::test]
async fn a_subscription_is_granted_as_a_whole_or_not_at_all() {
    let success = SubscribeReasonCode::Success(QoS::AtMostOnce);
    let failure = SubscribeReasonCode::Failure;
    let answer = |id, codes: &[_]| written(&Packet::SubAck(SubAck::new(id, codes.to_vec())));
    let refused = "the broker does not allow to read two/+; check its access rules";
    for (answer, text) in [
        (answer(1, &[success, failure]), refused),
        (answer(1, &[success]), NOT_MQTT),
        (answer(2, &[success, success]), NOT_MQTT),
        (accepted(), NOT_MQTT),
        (vec![], "closed by the broker"),
    ] {
        let answer = [accepted(), answer].concat();
        let result = handshake_with(&broker(), &answer).await;
        assert_eq!(result.unwrap_err(), text);
    }
}

#[tokio::test]
async fn r6_a_broker_that_never_grants_but_talks_is_left() {
    let (client, mut peer) = pair().await;
    let flood = message("one", &"x".repeat(60_000)).repeat(30);
    let said = async {
        peer.say(&accepted()).await;
        let _ = peer.stream.write_all(&flood).await; // nobody may read it to the end
    };
    let (broker, terms) = (broker(), terms());
    let (result, ()) = tokio::join!(Connection::handshake(client, &broker, &terms), said);
    assert_eq!(
        result.unwrap_err(),
        "the broker talks instead of granting the subscription"
    );
}

#[tokio::test]
async fn what_does_not_fit_is_not_said() {
    let long = "x".repeat(65_536);
    let (client, mut peer) = pair().await;
    let unsaid = Terms {
        client_id: long.clone(),
        ..terms()
    };
    let result = Connection::handshake(client, &broker(), &unsaid).await;
    assert_eq!(
        result.unwrap_err(),
        "a name, password or topic longer than MQTT allows"
    );
    assert_eq!(
        peer.stream.read_u8().await.unwrap_err().kind(),
        ErrorKind::ConnectionReset
    );
    let (mut connection, _peer) = open().await;
    connection.publish(&publication(&long, "a"));
    assert_eq!(
        next(&mut connection).await,
        ended("a topic longer than MQTT allows")
    );
}
