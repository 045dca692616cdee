use super::super::finding::Level;
use super::*;
use crate::dialect::Fault;

const MS: Duration = Duration::from_millis(1);

fn said(judge: impl FnOnce(&mut Findings)) -> Vec<(&'static str, Level)> {
    let mut said = Findings::default();
    judge(&mut said);
    for finding in &said.list {
        let needs_remedy = finding.level != Level::Ok;
        assert_eq!(needs_remedy, finding.remedy.is_some(), "{finding:?}");
    }
    said.list.iter().map(|one| (one.check, one.level)).collect()
}

/// Ten good seconds.
fn good() -> Watch {
    Watch {
        time: Duration::from_secs(10),
        messages: 20,
        readings: 20,
        longest_gap: 600 * MS,
        ..Watch::default()
    }
}

#[test]
fn silence_is_a_warning_and_then_a_problem() {
    for (watch, level) in [
        (good(), Level::Ok),
        (
            Watch {
                longest_gap: 2100 * MS,
                ..good()
            },
            Level::Warning,
        ),
        (
            Watch {
                messages: 9,
                ..good()
            },
            Level::Warning,
        ),
        (
            Watch {
                longest_gap: 5000 * MS,
                ..good()
            },
            Level::Problem,
        ),
        (
            Watch {
                messages: 0,
                ..good()
            },
            Level::Problem,
        ),
        (
            Watch {
                ended: Some((300 * MS, "closed by the device".into())),
                ..good()
            },
            Level::Problem,
        ),
    ] {
        assert_eq!(
            said(|said| judge_watch(&watch, said)),
            [("reports", level)],
            "{watch:?}"
        );
    }
    let garbled = Watch {
        unreadable: 1,
        ..good()
    };
    assert_eq!(
        said(|said| judge_watch(&garbled, said)),
        [("unreadable", Level::Warning), ("reports", Level::Ok)]
    );
}

#[test]
fn lost_pings_are_a_warning_and_then_a_problem() {
    let echoes = |lost: usize, trip: Duration| Echoes {
        sent: 20,
        answers: vec![trip; 20 - lost],
    };
    for (lost, level) in [
        (0, Level::Ok),
        (1, Level::Ok),
        (2, Level::Warning),
        (6, Level::Problem),
    ] {
        let found = said(|said| judge_echoes(Some(&echoes(lost, 5 * MS)), MS, said));
        assert_eq!(
            found,
            [("round_trip", Level::Ok), ("wifi", level)],
            "{lost}"
        );
    }
    // Filtered, or not allowed to ask: nothing can be said.
    for echoes in [Some(&echoes(20, MS)), None] {
        let found = said(|said| judge_echoes(echoes, MS, said));
        assert_eq!(found, [("round_trip", Level::Ok), ("wifi", Level::Ok)]);
    }
    let found = said(|said| judge_echoes(Some(&echoes(0, 300 * MS)), MS, said));
    assert_eq!(found[0], ("round_trip", Level::Warning));
    let found = said(|said| judge_echoes(None, 300 * MS, said));
    assert_eq!(found[0], ("round_trip", Level::Warning));
}

#[test]
fn sockets_that_this_computer_takes_are_counted() {
    for (clients, level) in [
        (0, Level::Ok),
        (2, Level::Ok),
        (3, Level::Warning),
        (6, Level::Problem),
    ] {
        let found = said(|said| judge_clients(clients, &good(), said));
        assert_eq!(found, [("sockets", level)], "{clients}");
    }
    let thrown_out = Watch {
        ended: Some((MS, String::new())),
        ..good()
    };
    assert_eq!(
        said(|said| judge_clients(2, &thrown_out, said)),
        [("sockets", Level::Problem)]
    );
}

#[test]
fn connections_are_found_in_the_kernels_tables() {
    let folder = std::env::temp_dir().join(format!("panda-proc-{}", std::process::id()));
    std::fs::create_dir_all(folder.join("net")).unwrap();
    let hex = |ip: [u8; 4]| format!("{:08X}", u32::from_ne_bytes(ip));
    let (here, there) = (hex([192, 0, 2, 1]), hex([192, 0, 2, 7]));
    let mapped = format!(
        "{:08X}{:08X}{:08X}{there}",
        0,
        0,
        u32::from_ne_bytes([0, 0, 255, 255])
    );
    let header = "  sl  local_address rem_address   st\n";
    let lines = [
        format!("0: {here}:9000 {there}:0050 01 00"), // one
        format!("1: {here}:9001 {there}:0050 06 00"), // over
        format!("2: {here}:9002 {there}:0051 01 00"), // another port
        format!("3: {there}:0050 {here}:0050 01 00"), // the other way
    ];
    std::fs::write(
        folder.join("net/tcp"),
        header.to_owned() + &lines.join("\n"),
    )
    .unwrap();
    let six = format!("{header}0: {mapped}:9003 {mapped}:0050 01 00\n");
    std::fs::write(folder.join("net/tcp6"), six).unwrap();
    let found = clients(&folder, "192.0.2.7".parse().unwrap(), 80);
    std::fs::remove_dir_all(&folder).unwrap();
    assert_eq!(found, 2);
}

#[test]
fn two_addresses_of_one_family_may_be_two_devices() {
    let judge = |addresses: &[&str]| {
        let addresses: Vec<_> = addresses.iter().map(|ip| ip.parse().unwrap()).collect();
        said(|said| judge_addresses("PandaBreath.local", &addresses, said))
    };
    assert_eq!(judge(&["192.0.2.7"]), [("resolves", Level::Ok)]);
    assert_eq!(
        judge(&["192.0.2.7", "2001:db8::7"]),
        [("resolves", Level::Ok)]
    );
    assert_eq!(
        judge(&["192.0.2.7", "192.0.2.8"]),
        [("resolves", Level::Warning)]
    );
}

#[test]
fn another_device_than_the_one_with_the_id_is_a_problem() {
    let device = Identity::of("x");
    let (found, digits) = (Some(device), device.last4());
    for (found, wanted, level) in [
        (found, None, Some(Level::Ok)),
        (found, Some(digits.as_str()), Some(Level::Ok)),
        (found, Some("0000"), Some(Level::Problem)),
        (None, Some("0000"), Some(Level::Problem)),
        (None, None, None),
    ] {
        let said = said(|said| identity(found, wanted, said));
        let expected: Vec<_> = level.map(|level| ("identity", level)).into_iter().collect();
        assert_eq!(said, expected, "{wanted:?}");
    }
}

#[test]
fn what_the_device_does_may_be_a_problem() {
    let judge = |report: &Report, readings| said(|said| judge_state(report, readings, said));
    let off = Report {
        on: Some(false),
        mode: Some(Mode::Auto),
        ..Report::default()
    };
    assert_eq!(judge(&off, 9), [("state", Level::Ok)]);
    assert_eq!(judge(&off, 0), [("state", Level::Problem)], "no reading");
    let auto = Report {
        on: Some(true),
        ..off.clone()
    };
    assert_eq!(judge(&auto, 9), [("state", Level::Warning)]);
    let broken = Report {
        fault: Some(Fault::Heater),
        ..off
    };
    assert_eq!(judge(&broken, 9), [("state", Level::Problem)]);
}
