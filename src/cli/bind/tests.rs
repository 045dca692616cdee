use clap::Parser;

use super::*;

#[derive(Debug, Parser)]
struct Command {
    #[command(flatten)]
    arguments: BindArguments,
}

fn parsed(line: &str) -> Result<BindArguments, clap::Error> {
    let words = std::iter::once("bind-broker").chain(line.split_whitespace());
    Command::try_parse_from(words).map(|command| command.arguments)
}

fn order(login: bool) -> Order {
    Order {
        device: "PandaBreath.local".parse().unwrap(),
        broker: "192.0.2.5:1884".parse().unwrap(),
        login: login.then(|| Login {
            username: "breath".into(),
            password: "geheim".into(),
        }),
        again: false,
        while_on: false,
    }
}

#[test]
fn a_broker_is_an_address_that_a_device_can_reach() {
    assert_eq!(broker("192.0.2.5").unwrap().port(), 1883);
    assert_eq!(broker("192.0.2.5:1884").unwrap().port(), 1884);
    for text in ["", "broker.lan", "fd00::5", "192.0.2.5:", "192.0.2.5:99999"] {
        let error = broker(text).unwrap_err();
        assert!(error.contains("192.168.1.10:1883"), "{text}: {error}");
    }
    for text in ["0.0.0.0", "224.0.0.1", "255.255.255.255", "192.0.2.5:0"] {
        assert_eq!(
            broker(text).unwrap_err(),
            "no broker can be there",
            "{text}"
        );
    }
    let error = parsed("h --broker 127.0.0.1").unwrap().order().unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
    assert!(error.to_string().contains("--loopback"), "{error}");
    assert!(
        parsed("h --broker 127.0.0.1 --loopback")
            .unwrap()
            .order()
            .is_ok()
    );
}

#[test]
fn a_password_has_a_name_with_it_and_is_no_argument() {
    assert!(parsed("h --broker 192.0.2.5 --password-file f").is_err());
    assert!(parsed("h --broker 192.0.2.5 --username u --password p").is_err());
    let long = "u".repeat(64);
    assert!(parsed(&format!("h --broker 192.0.2.5 --username {long}")).is_err());
    assert!(parsed(&format!("h --broker 192.0.2.5 --username {}", &long[1..])).is_ok());
    assert!(fits_device("a\tb").is_err());
}

#[test]
fn the_lines_for_the_configuration_have_no_password_in_them() {
    let id = ha::decode(br#"{"ap":{"ssid":"Panda_Breath_AABBCCDDEEFF"}}"#).unwrap();
    let mut out = Vec::new();
    write_config(&mut out, &order(true), id.id.as_ref()).unwrap();
    assert_eq!(
        String::from_utf8(out).unwrap(),
        "\nIn printer.cfg, in the section [panda_breath] and instead of its 'host':\n\n\
         firmware: stock_mqtt\nmqtt_broker: 192.0.2.5\nmqtt_port: 1884\n\
         mqtt_device_id: AABBCCDDEEFF\n\n\
         and mqtt_username with mqtt_password_file: Klipper has to log in at the broker, too.\n"
    );
    let mut out = Vec::new();
    let usual = Order {
        broker: "192.0.2.5:1883".parse().unwrap(),
        ..order(false)
    };
    write_config(&mut out, &usual, None).unwrap();
    let text = String::from_utf8(out).unwrap();
    assert!(text.ends_with("\n\nfirmware: stock_mqtt\nmqtt_broker: 192.0.2.5\n"));
}

#[test]
fn a_failure_is_one_line_that_says_what_was_seen_and_what_to_do() {
    let seen = |bound, state| Ok(Ha { bound, state });
    let at = Bound::At(order(false).broker);
    for (last, part) in [
        (
            seen(at, Some(2)),
            "has taken 192.0.2.5:1884, but after 30 s",
        ),
        (seen(at, None), "it tells no state"),
        (
            seen(Bound::Nowhere, Some(0)),
            "does not have 192.0.2.5:1884 as its broker (state 0)",
        ),
        (Err("no answer".to_owned()), "does not say so: no answer"),
    ] {
        let text = not_bound(&order(true), &Patience::default(), last);
        assert!(text.contains(part), "{text}");
        assert!(
            text.contains("by hand: http://PandaBreath.local/"),
            "{text}"
        );
        assert!(!text.contains('\n') && !text.contains("geheim"), "{text}");
    }
}

#[test]
fn only_a_device_that_says_that_it_is_off_is_changed_without_a_word() {
    let report = |on, mode| Report {
        on,
        mode,
        ..Report::default()
    };
    let on = report(Some(true), Some(crate::dialect::Mode::On));
    let error = refuse_while_on(&on, false, "Binding").unwrap_err();
    assert!(error.to_string().contains("is on (mode on)"), "{error}");
    assert!(error.to_string().contains("--while-on"), "{error}");
    assert!(refuse_while_on(&on, true, "Binding").is_ok());
    assert!(refuse_while_on(&report(None, None), false, "Binding").is_err());
    assert!(refuse_while_on(&report(Some(false), None), false, "Binding").is_ok());
}
