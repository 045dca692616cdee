//! Connections that end, hang and come back.

use std::time::Duration;

use _core::session::{Link, Snapshot};
use _core::sim::{Entry, Event};

use crate::klipper::{Klipper, OFF, Rig, heat, now_s, pause};

/// Waits for a line of the device's log while Klipper goes on draining.
#[track_caller]
fn wait(klipper: &mut Klipper, rig: &Rig, mark: usize, fits: impl Fn(&Event) -> bool) -> Entry {
    let end = now_s() + 60.0;
    loop {
        let found = rig.simulator.entries()[mark..]
            .iter()
            .find(|entry| fits(&entry.event))
            .cloned();
        if let Some(entry) = found {
            return entry;
        }
        klipper.drain();
        assert!(
            now_s() < end,
            "never: {:#?}\n{:#?}",
            rig.story(mark),
            klipper.lines
        );
        pause();
    }
}

fn opened(event: &Event) -> bool {
    matches!(event, Event::Open { .. })
}

fn frame(text: &str) -> impl Fn(&Event) -> bool {
    move |event| matches!(event, Event::Frame { text: arrived, .. } if arrived == text)
}

fn is_live(snapshot: &Snapshot) -> bool {
    snapshot.link == Link::Connected
}

/// What the hung socket still holds, is parsed when it thaws.
#[test]
fn r4_heat_in_a_hung_socket_is_off_in_the_end() {
    let rig = Rig::new();
    let mut klipper = rig.off();
    rig.inject("hang");
    let mark = rig.mark();
    klipper.want(45.0);
    klipper.drain_for(Duration::from_secs(4));
    klipper.want(0.0);
    // The silence rule ends it, and a new one is opened.
    wait(&mut klipper, &rig, mark, opened);
    klipper.wait_connected();
    assert_eq!(
        rig.frames_since(mark),
        [""; 0],
        "nothing of it was read so far"
    );
    let thawed = rig.mark();
    rig.inject("resume");
    stays_off(&mut klipper, &rig, mark, thawed);
}

/// Heat alone is in the hung socket; the off goes out on another, before the thaw.
#[test]
fn r4_heat_that_thaws_between_two_looks_is_found_by_the_second() {
    let rig = Rig::new();
    let mut klipper = rig.off();
    rig.inject("hang");
    let mark = rig.mark();
    klipper.want(45.0);
    wait(&mut klipper, &rig, mark, opened);
    klipper.want(0.0);
    klipper.wait_connected();
    // One look says off, and is not believed.
    let looks = rig.mark();
    wait(&mut klipper, &rig, looks, opened);
    wait(&mut klipper, &rig, looks, |event| {
        matches!(event, Event::Close { .. })
    });
    let looked = now_s();
    assert!(!klipper.drain().off_known, "one look is not enough");
    let thawed = rig.mark();
    rig.inject("resume");
    stays_off(&mut klipper, &rig, mark, thawed);
    assert!(
        now_s() - looked > 9.0,
        "the second look came {} s later",
        now_s() - looked
    );
}

#[track_caller]
fn stays_off(klipper: &mut Klipper, rig: &Rig, mark: usize, thawed: usize) {
    klipper.wait_off_known();
    let known = rig.mark();
    assert!(!rig.is_on(), "{:#?}", rig.story(mark));
    klipper.drain_for(Duration::from_secs(2));
    assert!(!rig.is_on(), "{:#?}", rig.story(mark));
    assert_eq!(rig.frames_since(known), [""; 0], "{:#?}", rig.story(mark));
    let from_the_hung = rig.client_frames_since(thawed);
    let from_the_hung = from_the_hung.iter().filter(|(client, _)| *client == 1);
    assert!(from_the_hung.count() <= 2, "{:#?}", rig.story(mark));
}

#[test]
fn r4_of_60_000_targets_for_a_hung_device_it_parses_two() {
    let rig = Rig::new();
    let mut klipper = rig.off();
    rig.inject("hang");
    let mark = rig.mark();
    for n in 0..60_000_u32 {
        klipper.want(30.0 + f64::from(n % 20));
        if n % 100 == 0 {
            klipper.drain();
        }
    }
    klipper.want(55.0);
    rig.inject("resume"); // still the same connection
    wait(&mut klipper, &rig, mark, frame(&heat(55)));
    klipper.wait_readings(4);
    let frames = rig.frames_since(mark);
    assert!(frames.len() <= 2, "{frames:?}");
    assert_eq!(frames.last(), Some(&heat(55)));
}

#[test]
fn r4_of_60_000_targets_and_offs_for_a_hung_device_it_parses_two_when_it_thaws_later() {
    let rig = Rig::new();
    let mut klipper = rig.off();
    rig.inject("hang");
    let mark = rig.mark();
    for n in 0..60_000_u32 {
        klipper.want(if n % 3 == 0 {
            0.0
        } else {
            30.0 + f64::from(n % 20)
        });
        if n % 100 == 0 {
            klipper.drain();
        }
    }
    klipper.want(0.0);
    wait(&mut klipper, &rig, mark, opened);
    klipper.wait_connected();
    let thawed = rig.mark();
    rig.inject("resume");
    stays_off(&mut klipper, &rig, mark, thawed);
}

#[test]
fn r4_after_a_reboot_only_the_current_wish_is_sent() {
    let rig = Rig::with(|options| options.reboot_s = 1.5);
    let mut klipper = rig.heating();
    let mark = rig.mark();
    rig.inject("reboot");
    klipper.wait_until("gone", |snapshot| !is_live(snapshot));
    for n in 0..100 {
        klipper.want(20.0 + f64::from(n % 30));
        klipper.drain();
    }
    klipper.want(52.0);
    let up = wait(&mut klipper, &rig, mark, |event| *event == Event::Up);
    let resynchronised = wait(&mut klipper, &rig, mark, frame(&heat(52)));
    assert!(
        resynchronised.t - up.t < 3.0,
        "{} s",
        resynchronised.t - up.t
    );
    let snapshot = klipper.wait_connected();
    assert_eq!(snapshot.reconnects, 1);
    assert_eq!(snapshot.last_error, None);
    klipper.wait_readings(4);
    assert_eq!(rig.frames_since(mark), [heat(52)]);
}

#[test]
fn r9_turned_off_by_hand_while_the_link_was_down_it_stays_off() {
    let rig = Rig::new();
    let mut klipper = rig.heating();
    let mark = rig.mark();
    rig.inject("refuse 1");
    rig.inject("drop");
    rig.inject("button power"); // and nobody is there to hear of it
    let snapshot = klipper.wait_until("external off", |snapshot| snapshot.external_off);
    assert_eq!((snapshot.forced_offs, snapshot.failures), (1, 0));
    klipper.drain_for(Duration::from_secs(2));
    assert_eq!(rig.frames_since(mark), [""; 0]);
}

#[test]
fn r9_heat_that_never_arrived_is_sent_again_and_is_no_external_off() {
    let rig = Rig::new();
    let mut klipper = rig.off();
    rig.inject("hang");
    let mark = rig.mark();
    klipper.want(45.0);
    wait(&mut klipper, &rig, mark, frame(&heat(45)));
    let snapshot = klipper.wait_readings(4);
    assert_eq!(snapshot.forced_offs, 0);
    assert_eq!(rig.client_frames_since(mark), [(3, heat(45))]);
}

#[test]
fn r2_off_during_a_reboot_is_sent_after_it() {
    let rig = Rig::with(|options| options.reboot_s = 1.0);
    let mut klipper = rig.heating();
    let mark = rig.mark();
    rig.inject("reboot");
    klipper.wait_until("gone", |snapshot| !is_live(snapshot));
    klipper.want(0.0);
    wait(&mut klipper, &rig, mark, frame(OFF));
    klipper.wait_off_known();
    assert!(!rig.is_on());
    assert_eq!(rig.frames_since(mark), [OFF]);
}

#[test]
fn after_a_silent_power_cut_it_is_resynchronised_in_6_5_s() {
    std::thread::scope(|scope| {
        for seconds in ["0.5", "4", "12"] {
            scope.spawn(move || {
                let rig = Rig::new();
                let mut klipper = rig.heating();
                let mark = rig.mark();
                rig.inject(&format!("powercut {seconds}"));
                klipper.want(0.0);
                klipper.want(50.0);
                let up = wait(&mut klipper, &rig, mark, |event| *event == Event::Up);
                let new = wait(&mut klipper, &rig, mark, frame(&heat(50)));
                assert!(new.t - up.t < 6.5, "{seconds}: {} s", new.t - up.t);
                klipper.wait_readings(4);
                assert_eq!(rig.frames_since(mark), [heat(50)], "{seconds}");
            });
        }
    });
}

#[test]
fn r4_nothing_that_was_wished_for_while_refused_is_sent_later() {
    let rig = Rig::new();
    let mut klipper = rig.off();
    let mark = rig.mark();
    rig.inject("refuse 2");
    rig.inject("drop");
    let snapshot = klipper.wait_until("gone", |snapshot| !is_live(snapshot));
    assert_eq!(snapshot.link, Link::Reconnecting);
    for n in 0..100 {
        klipper.want(if n % 5 == 0 {
            0.0
        } else {
            20.0 + f64::from(n % 30)
        });
        klipper.drain();
    }
    klipper.want(47.0);
    let refused = klipper.wait_until("refused", |snapshot| {
        snapshot.last_error.as_deref() == Some("connection refused")
    });
    assert_eq!(refused.link, Link::Reconnecting);
    wait(&mut klipper, &rig, mark, frame(&heat(47)));
    klipper.wait_readings(4);
    assert_eq!(rig.frames_since(mark), [heat(47)]);
}

#[test]
fn a_device_that_refuses_from_the_start_is_waited_for() {
    let rig = Rig::new();
    rig.inject("refuse 1.5");
    let mut klipper = Klipper::starting(rig.config());
    let snapshot = klipper.wait_until("refused", |snapshot| snapshot.last_error.is_some());
    assert_eq!(snapshot.link, Link::Connecting);
    assert_eq!(snapshot.last_error.as_deref(), Some("connection refused"));
    let snapshot = klipper.wait_connected();
    assert_eq!((snapshot.reconnects, snapshot.last_error), (0, None));
    let told = klipper
        .lines
        .iter()
        .filter(|line| line.contains("cannot connect"))
        .count();
    assert_eq!(told, 1, "{:?}", klipper.lines);
}

#[test]
fn r5_a_silent_device_is_left_after_five_seconds_and_its_last_reading_is_not_repeated() {
    let rig = Rig::new();
    let mut klipper = rig.off();
    rig.inject("mute 8");
    let last = klipper.wait_readings(0).reading.unwrap();
    let muted = rig.mark();
    let new = wait(&mut klipper, &rig, muted, opened);
    let snapshot = klipper.wait_connected();
    assert_eq!(snapshot.reconnects, 1);
    let number = snapshot.reading.unwrap().number;
    assert!(number <= last.number + 1, "one may have been on its way");
    // A fresh snapshot has no temperature, and none is made up.
    klipper.wait_readings(1);
    let inject = rig.wait_since(0, "mute", |event| matches!(event, Event::Inject { .. }));
    assert!(
        (4.0..8.0).contains(&(new.t - inject.t)),
        "{} s",
        new.t - inject.t
    );
}

#[test]
fn a_dribbled_handshake_never_holds_anything_up_and_is_given_up() {
    let rig = Rig::new();
    let mut klipper = rig.heating();
    let mark = rig.mark();
    rig.inject("drip");
    rig.inject("drop");
    klipper.want(50.0);
    let first = wait(&mut klipper, &rig, mark, opened);
    let second = mark_of(&rig, &first) + 1;
    // It is left alone after a while, and tried again.
    wait(&mut klipper, &rig, second, opened);
    let snapshot = klipper.drain();
    assert_eq!(snapshot.link, Link::Reconnecting);
    assert!(snapshot.last_error.is_some());
    assert!(!klipper.handle.is_stuck());
    rig.inject("drip off");
    wait(&mut klipper, &rig, second, frame(&heat(50)));
    klipper.wait_readings(4);
    assert_eq!(rig.frames_since(mark), [heat(50)]);
}

fn mark_of(rig: &Rig, wanted: &Entry) -> usize {
    rig.simulator
        .entries()
        .iter()
        .position(|entry| entry == wanted)
        .unwrap()
}

#[test]
fn r2_evicted_by_seven_other_clients_it_comes_back() {
    let rig = Rig::new();
    let mut klipper = rig.heating();
    let mark = rig.mark();
    let others: Vec<_> = (0..7)
        .map(|_| std::net::TcpStream::connect(rig.simulator.address(0)).unwrap())
        .collect();
    wait(&mut klipper, &rig, mark, |event| {
        matches!(event, Event::Close { client: 1, .. })
    });
    klipper.want(0.0);
    wait(&mut klipper, &rig, mark, frame(OFF));
    drop(others);
    klipper.wait_off_known();
}
