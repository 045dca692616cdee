//! One writer, one device, and no secret of it anywhere.

use std::time::Duration;

use _core::dialect;
use _core::session::{Config, Link};
use _core::sim::Event;

use crate::klipper::{Klipper, OFF, Rig, heat, mac};

#[test]
fn another_device_at_the_same_address_gets_no_heat_and_is_not_believed() {
    let rig = Rig::new();
    let mut klipper = rig.heating();
    let pinned = klipper.drain().identity.unwrap();
    rig.inject(&format!("identity {}", mac()));
    let mark = rig.mark();
    rig.inject("reboot");
    let snapshot = klipper.wait_until("an error", |now| now.link == Link::Error);
    let number = snapshot.reading.unwrap().number;
    let error = snapshot.last_error.unwrap();
    assert!(error.contains("but this was device"), "{error}");
    assert!(error.contains(&pinned.last4()), "{error}");
    klipper.want(50.0);
    klipper.drain_for(Duration::from_secs(4));
    klipper.want(0.0);
    let snapshot = klipper.drain_for(Duration::from_secs(4));
    assert_eq!(
        rig.frames_since(mark),
        [""; 0],
        "neither heat nor off is this device's"
    );
    assert_eq!(snapshot.reading.unwrap().number, number);
    assert_eq!(snapshot.identity, Some(pinned));
    assert_eq!(snapshot.link, Link::Error);
    assert!(rig.opened_since(mark).len() >= 2, "but it is looked for");
    let told = klipper
        .lines
        .iter()
        .filter(|line| line.contains("but this was"))
        .count();
    assert_eq!(told, 1, "{:?}", klipper.lines);
}

#[test]
fn the_right_device_is_taken_up_again_when_it_is_back() {
    let own = mac();
    let rig = Rig::with(|options| options.setup.identity = own);
    let mut klipper = rig.heating();
    rig.inject(&format!("identity {}", mac()));
    rig.inject("reboot");
    klipper.wait_until("an error", |now| now.link == Link::Error);
    klipper.want(50.0);
    let mark = rig.mark();
    rig.inject(&format!("identity {own}"));
    rig.inject("reboot");
    let snapshot = klipper.wait_connected();
    assert_eq!(snapshot.last_error, None);
    rig.wait_frame_since(mark, &heat(50));
    klipper.wait_readings(3);
    assert_eq!(rig.frames_since(mark), [heat(50)]);
}

#[test]
fn a_device_stays_pinned_for_the_life_of_the_process() {
    let rig = Rig::new();
    let mut klipper = rig.off();
    let pinned = klipper.drain().identity.unwrap();
    let mark = rig.mark();
    drop(klipper);
    rig.wait_since(mark, "the session's end", |event| {
        matches!(event, Event::Close { open: 0, .. })
    });
    rig.inject(&format!("identity {}", mac()));
    rig.inject("reboot");
    rig.wait_since(mark, "up", |event| *event == Event::Up);
    let mark = rig.mark();
    let mut klipper = Klipper::ready(rig.config());
    let snapshot = klipper.wait_until("an error", |now| {
        now.link != Link::Connecting && now.link != Link::Pending
    });
    assert_eq!(snapshot.link, Link::Error);
    assert!(snapshot.last_error.unwrap().contains(&pinned.last4()));
    klipper.want(45.0);
    klipper.drain_for(Duration::from_secs(2));
    assert_eq!(rig.frames_since(mark), [""; 0]);
}

#[test]
fn device_id_refuses_every_other_device() {
    let own = mac();
    let id = dialect::Identity::of(&own.access_point()).last4();
    let rig = Rig::with(|options| options.setup.identity = own);
    let right = Config {
        device_id: Some(id.clone()),
        ..rig.config()
    };
    let mut klipper = Klipper::ready(right);
    assert_eq!(klipper.wait_connected().identity.unwrap().last4(), id);

    let other = Rig::new();
    let wrong = Config {
        device_id: Some(id.clone()),
        ..other.config()
    };
    let mut klipper = Klipper::ready(wrong);
    let snapshot = klipper.wait_until("an error", |now| now.link == Link::Error);
    let error = snapshot.last_error.unwrap();
    assert!(
        error.contains(&format!("option 'device_id' asks for {id}")),
        "{error}"
    );
    klipper.want(45.0);
    let snapshot = klipper.drain_for(Duration::from_secs(3));
    assert_eq!((snapshot.reading, snapshot.identity), (None, None));
    assert_eq!(
        other.frames_since(0),
        [""; 0],
        "it is somebody else's, and on"
    );
}

#[test]
fn the_same_device_in_two_sections_is_an_error_of_the_second() {
    let rig = Rig::with(|options| options.listen = ([127, 0, 0, 1], 0).into());
    let section = |name: &str, host: &str| Config {
        name: name.into(),
        host: host.into(),
        ..rig.config()
    };
    let mut first = Klipper::ready(section("panda_breath first", "127.0.0.1"));
    first.wait_off_known();
    let mark = rig.mark();
    let mut second = Klipper::ready(section("panda_breath second", "localhost"));
    let snapshot = second.wait_until("an error", |now| now.link == Link::Error);
    let error = snapshot.last_error.unwrap();
    assert!(
        error.contains("the same device as in [panda_breath first]"),
        "{error}"
    );
    second.want(50.0);
    first.drain();
    second.drain_for(Duration::from_secs(2));
    assert_eq!(second.drain().reading, None);
    assert_eq!(rig.frames_since(mark), [""; 0]);
    first.want(45.0);
    rig.wait_frame_since(mark, &heat(45));
    second.want(0.0);
    second.drain_for(Duration::from_secs(1));
    first.wait_readings(2);
    assert_eq!(
        rig.frames_since(mark),
        [heat(45)],
        "the first has it, and nobody else"
    );

    // The first section is deleted, with a RESTART: the second takes the duty over.
    let mark = rig.mark();
    second.lines.clear();
    drop(first);
    second.wait_connected();
    rig.wait_frame_since(mark, OFF);
    second.wait_off_known();
    assert!(!rig.is_on());
    second.want(50.0);
    rig.wait_frame_since(mark, &heat(50));
}

#[test]
fn r11_no_secret_of_the_device_is_anywhere() {
    const SECRETS: [&str; 6] = [
        "S3cretSsid",
        "S3cretWifi",
        "S3cretHotspot",
        "S3cretCode",
        "S3cretBody",
        "S3cretHeader",
    ];
    let own = mac();
    let rig = Rig::with(|options| {
        options.setup.identity = own;
        options.setup.wifi_ssid = SECRETS[0].into();
        options.setup.wifi_password = SECRETS[1].into();
        options.setup.ap_password = SECRETS[2].into();
        options.setup.access_code = Some(SECRETS[3].into());
    });
    let mut shown = Vec::new();
    let mut klipper = Klipper::ready(rig.config());
    let mut note = |klipper: &mut Klipper| {
        let snapshot = klipper.drain();
        shown.push(format!(
            "{snapshot:?} {snapshot:#?} {:?} {:?}",
            klipper.handle, klipper.lines
        ));
    };
    klipper.wait_off_known();
    note(&mut klipper);
    klipper.want(45.0);
    rig.wait_state(1, 45);
    for input in [
        "raw {\"wifi\":{\"ssid\":\"S3cretSsid\",\"password\":\"S3cretWifi\"}}",
        "raw {\"settings\":{\"fw_version\":3,\"language\":\"S3cretBody\",\"warehouse_temper\":\"S3cretBody\"}}",
        "raw {\"ap\":{\"password\":\"S3cretHotspot\"},\"printer\":{\"access_code\":\"S3cretCode\"",
        "raw S3cretBody",
        "rawhex 880c03e85333637265744865616465", // a close frame with a text
        "rawhex c10a533363726574426f6479",       // a frame that is none
    ] {
        rig.inject(input);
        klipper.drain_for(Duration::from_millis(300));
        note(&mut klipper);
        klipper.wait_connected();
        note(&mut klipper);
    }
    rig.inject("button power");
    klipper.wait_until("external off", |now| now.external_off);
    note(&mut klipper);
    rig.inject(&format!("identity {}", mac()));
    rig.inject("reboot");
    klipper.wait_until("an error", |now| now.link == Link::Error);
    note(&mut klipper);
    let shown = shown.join("\n");
    assert!(
        shown.contains("connection to"),
        "something was looked at: {shown}"
    );
    let mac = own.to_string();
    for secret in SECRETS.into_iter().chain([&*mac, "Panda_Breath_"]) {
        assert!(!shown.contains(secret), "{secret} in {shown}");
    }
}
