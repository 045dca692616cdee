//! Silence, and what is done about it.

use super::*;

/// With these pauses between what we publish, and after so many answers.
#[tokio::test(start_paused = true)]
async fn a_broker_that_does_not_answer_is_left_in_time() {
    for (pause, answers) in [
        (None, 0),
        (None, 1),
        (None, 3),
        (Some(700), 0),
        (Some(4000), 2),
    ] {
        let (mut connection, mut peer) = open().await;
        let mut silent_since = Instant::now();
        let ends = async {
            let pause = pause.map(Duration::from_millis);
            let why = loop {
                tokio::select! {
                    incoming = next(&mut connection) => break incoming,
                    () = sleep(pause.unwrap_or_default()), if pause.is_some() => {}
                }
                connection.publish(&publication("one", "as ever"));
            };
            drop(connection);
            (why, Instant::now())
        };
        let asks = async {
            for _ in 0..answers {
                while peer.hear().await != Some(Packet::PingReq) {}
                peer.say(&PING_RESPONSE).await;
                silent_since = Instant::now();
            }
        };
        let ((why, at), ()) = tokio::join!(ends, asks);
        let took = at - silent_since;
        assert_eq!(why, ended("the broker does not answer"));
        assert!(took < 2 * KEEP_ALIVE, "{took:?}");
        assert!(took >= KEEP_ALIVE, "{took:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_quiet_hour_is_spent_with_one_question_each_time() {
    let (mut connection, mut peer) = open().await;
    let hour = Duration::from_secs(3600);
    let answers = async {
        let mut asked = 0;
        loop {
            assert_eq!(peer.hear().await, Some(Packet::PingReq));
            asked += 1;
            peer.say(&PING_RESPONSE).await;
            if asked == 757 {
                return;
            }
        }
    };
    let mut turns = 0;
    let since = Instant::now();
    let waits = poll_fn(|cx| {
        turns += 1;
        connection.poll_ready(cx)
    });
    tokio::select! {
        () = waits => panic!("there is nothing to take"),
        () = answers => {}
    }
    let took = since.elapsed();
    assert!(took + KEEP_ALIVE > hour && took <= hour, "{took:?}");
    assert!(turns <= 3 * 757, "{turns} wake-ups");
}

#[tokio::test(start_paused = true)]
async fn who_only_listens_is_asked_after_as_well() {
    let (mut connection, mut peer) = open().await;
    let since = Instant::now();
    let talks = async {
        let message = message("one", "news");
        for _ in 0..100 {
            peer.say(&message).await;
            tokio::select! {
                packet = peer.hear() => {
                    assert_eq!(packet, Some(Packet::PingReq));
                    return since.elapsed();
                }
                () = sleep(Duration::from_millis(100)) => {}
            }
        }
        panic!("it only listens");
    };
    let listens = async {
        loop {
            assert_eq!(next(&mut connection).await, incoming("one", "news"));
        }
    };
    tokio::select! {
        took = talks => assert!(took <= KEEP_ALIVE, "{took:?}"),
        () = listens => {}
    }
}
