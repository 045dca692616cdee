//! What the device's own web page shows and sets: network, printer, restarts (protocol sections
//! 2.2, 2.3, 3.2 and 5).
//!
//! For commands that a person runs; Klipper's driver never reads this. Rule R11 holds all the same:
//! what names or opens a network is [`Private`], which no text can be made of by accident.

use std::fmt;
use std::net::SocketAddrV4; // one line each: the check of purity reads lines

use serde_json::{Map, Value, json};

use super::MAX_MESSAGE;
use crate::dialect::Language;

/// Longer texts mean nothing here.
const LONGEST: usize = 128;
/// More networks than a page would show.
const MOST: usize = 64;
/// `state` of a connection that works, of Wi-Fi and of the printer.
pub const CONNECTED: u8 = 3;
/// `sta.state`: the password is wrong.
pub const WRONG_PASSWORD: u8 = 5;
/// `wifi.scan` of a scan that is done.
const SCANNED: u8 = 2;

/// A text that is nobody's business, until somebody says so.
#[derive(Clone, PartialEq, Eq)]
pub struct Private(String);

impl Private {
    /// Whether it is this text.
    pub fn is(&self, text: &str) -> bool {
        self.0 == text
    }

    /// The text itself, to send it back to the device or to show it to who asked for it.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Private {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("…")
    }
}

/// One frame of the device; `None` where it does not say.
#[derive(Clone, Debug, Default)]
pub struct Page {
    /// The network that is set.
    pub wifi_ssid: Option<Private>,
    /// What a scan has found; `None` while none is done.
    pub wifi_found: Option<Vec<Private>>,
    /// Name of the device in its network.
    pub hostname: Option<String>,
    /// Its address there.
    pub ip: Option<String>,
    /// How far it has come with its network, in the firmware's numbers.
    pub wifi_state: Option<u8>,
    /// Its own access point.
    pub ap: Option<AccessPoint>,
    /// The printer it is bound to.
    pub printer: Option<Printer>,
    /// What came of a request, perhaps another client's.
    pub response: Option<Response>,
}

/// The device's own access point.
#[derive(Clone, Debug)]
pub struct AccessPoint {
    /// Its name.
    pub ssid: Private,
    /// Its password.
    pub password: Private,
    /// The device's address in it.
    pub ip: Private,
    /// Whether it is always on.
    pub on: Option<bool>,
}

/// The printer that a device is bound to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Printer {
    /// Whether it is bound to any.
    pub bound: bool,
    /// What a Klipper printer is called on the page, and where its Moonraker is.
    pub klipper: Option<(Private, SocketAddrV4)>,
    /// How far it has come with it, in the firmware's numbers.
    pub state: Option<u8>,
}

/// An acknowledgement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Response {
    /// What it is about.
    pub kind: String,
    /// Whether it has worked.
    pub ok: bool,
}

/// The printers that the firmware can follow, 1.0.3 and later.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PrinterType {
    /// `1`
    Bambu,
    /// `2`
    Klipper,
}

impl PrinterType {
    /// In `settings.printer_type`.
    pub fn number(self) -> u8 {
        match self {
            Self::Bambu => 1,
            Self::Klipper => 2,
        }
    }
}

/// Reads one message; what cannot be read says nothing.
pub fn decode(message: &[u8]) -> Page {
    if message.len() > MAX_MESSAGE {
        return Page::default();
    }
    let Ok(Value::Object(root)) = serde_json::from_slice(message) else {
        return Page::default();
    };
    let part = |name: &str| root.get(name).and_then(Value::as_object);
    let (wifi, sta) = (part("wifi"), part("sta"));
    Page {
        wifi_ssid: wifi.and_then(|wifi| private(wifi, "ssid")),
        wifi_found: wifi.and_then(found),
        hostname: sta.and_then(|sta| text(sta, "hostname")).map(str::to_owned),
        ip: sta.and_then(|sta| text(sta, "ip")).map(str::to_owned),
        wifi_state: sta.and_then(|sta| number(sta, "state")),
        ap: part("ap").and_then(access_point),
        printer: part("printer").map(printer),
        response: part("response").and_then(response),
    }
}

fn found(wifi: &Map<String, Value>) -> Option<Vec<Private>> {
    if number(wifi, "scan") != Some(SCANNED) {
        return None;
    }
    let list = wifi.get("list").and_then(Value::as_array);
    let networks = list.into_iter().flatten().take(MOST);
    let mut names: Vec<_> = networks
        .filter_map(|network| private(network.as_object()?, "ssid"))
        .filter(|name| !name.is(""))
        .collect();
    names.sort_by(|a, b| a.0.cmp(&b.0));
    names.dedup();
    Some(names)
}

fn access_point(ap: &Map<String, Value>) -> Option<AccessPoint> {
    Some(AccessPoint {
        ssid: private(ap, "ssid")?,
        password: private(ap, "password")?,
        ip: private(ap, "ip")?,
        on: number(ap, "on").map(|on| on != 0),
    })
}

fn printer(printer: &Map<String, Value>) -> Printer {
    let name = private(printer, "name").filter(|name| !name.is(""));
    let ip = text(printer, "host").and_then(|host| host.parse().ok());
    let port = printer.get("port").and_then(Value::as_u64);
    let port = port.and_then(|port| u16::try_from(port).ok());
    let at = ip.zip(port).map(|(ip, port)| SocketAddrV4::new(ip, port));
    Printer {
        bound: name.is_some(),
        klipper: name.zip(at),
        state: number(printer, "state"),
    }
}

fn response(response: &Map<String, Value>) -> Option<Response> {
    Some(Response {
        kind: text(response, "type")?.to_owned(),
        ok: number(response, "ok")? != 0,
    })
}

fn text<'a>(fields: &'a Map<String, Value>, name: &str) -> Option<&'a str> {
    let text = fields.get(name)?.as_str()?;
    (text.len() <= LONGEST).then_some(text)
}

fn private(fields: &Map<String, Value>, name: &str) -> Option<Private> {
    text(fields, name).map(|text| Private(text.to_owned()))
}

/// A number, or one of the booleans that the firmware has in its place elsewhere.
fn number(fields: &Map<String, Value>, name: &str) -> Option<u8> {
    let value = fields.get(name)?;
    let whole = value.as_bool().map(u64::from).or_else(|| value.as_u64());
    u8::try_from(whole?).ok()
}

/// Looks for Wi-Fi networks.
pub fn scan_wifi() -> String {
    json!({"wifi": {"scan": 1}}).to_string()
}

/// Joins a Wi-Fi network. An open one has an empty password, which must be there.
pub fn join_wifi(ssid: &str, password: &str) -> String {
    json!({"wifi": {"ssid": ssid, "password": password}}).to_string()
}

/// Sets the name of the device.
pub fn hostname(name: &str) -> String {
    json!({"sta": {"hostname": name}}).to_string()
}

/// Turns the access point on for ever, or not.
pub fn access_point_on(on: bool) -> String {
    json!({"ap": {"on": u8::from(on)}}).to_string()
}

/// Sets the access point. The firmware wants all three.
pub fn set_access_point(ssid: &str, password: &str, ip: &str) -> String {
    json!({"ap": {"ssid": ssid, "password": password, "ip": ip}}).to_string()
}

/// Binds to a Klipper printer; without a name the firmware would ignore it.
pub fn bind_klipper(name: &str, moonraker: SocketAddrV4) -> String {
    let (ip, port) = (moonraker.ip().to_string(), moonraker.port());
    json!({"printer": {"name": name, "ip": ip, "port": port}}).to_string()
}

/// Unbinds from the printer.
pub fn unbind_printer() -> String {
    json!({"printer": {"disconnect": 1}}).to_string()
}

/// Sets the language of the page.
pub fn language(language: Language) -> String {
    let code = match language {
        Language::English => "en",
        Language::Chinese => "zh",
    };
    json!({"settings": {"language": code}}).to_string()
}

/// Which printers it follows. The device restarts.
pub fn printer_type(kind: PrinterType) -> String {
    json!({"settings": {"printer_type": kind.number()}}).to_string()
}

/// Restarts at once.
pub fn restart() -> String {
    json!({"settings": {"reset": 1}}).to_string()
}

/// Erases all settings, and restarts.
pub fn factory_reset() -> String {
    json!({"settings": {"factory_reset": 1}}).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SNAPSHOT: &[u8] = br#"{
        "wifi":{"ssid":"geheim1","password":"geheim2","scan":2,
            "list":[{"ssid":"b"},{"ssid":"a"},{"ssid":""},{"ssid":"a"},7]},
        "sta":{"hostname":"PandaBreath","ip":"192.0.2.10","state":3,"auth_err_reason":0},
        "ap":{"ssid":"geheim3","password":"geheim4","ip":"192.168.254.1","on":0},
        "printer":{"name":"geheim5","host":"192.0.2.20","port":7125,"state":3,"scan":0},
        "response":{"type":"set_ap","ok":1}}"#;

    #[test]
    fn a_frame_is_read_and_its_secrets_are_not_shown() {
        let page = decode(SNAPSHOT);
        assert!(page.wifi_ssid.as_ref().unwrap().is("geheim1"));
        let found = page.wifi_found.as_ref().unwrap();
        assert_eq!(
            found.iter().map(Private::expose).collect::<Vec<_>>(),
            ["a", "b"]
        );
        assert_eq!(page.hostname.as_deref(), Some("PandaBreath"));
        assert_eq!(page.wifi_state, Some(CONNECTED));
        assert_eq!(page.ap.as_ref().unwrap().on, Some(false));
        let (name, at) = page.printer.clone().unwrap().klipper.unwrap();
        assert!(name.is("geheim5"));
        assert_eq!(at.to_string(), "192.0.2.20:7125");
        let response = page.response.as_ref().unwrap();
        assert_eq!((response.kind.as_str(), response.ok), ("set_ap", true));
        assert!(!format!("{page:?}").contains("geheim"), "rule R11");
    }

    #[test]
    fn r6_a_message_over_64_kib_is_not_read() {
        let padded = |len: usize| {
            let mut text = br#"{"sta":{"state":3}}"#.to_vec();
            text.resize(len, b' ');
            decode(&text).wifi_state
        };
        assert_eq!(padded(MAX_MESSAGE), Some(3));
        assert_eq!(padded(MAX_MESSAGE + 1), None);
        assert_eq!(padded(MAX_MESSAGE + 2), None);
    }

    #[test]
    fn what_is_not_said_or_makes_no_sense_is_nothing() {
        for text in [
            "",
            "[]",
            "{",
            r#"{"wifi":[],"sta":7,"ap":{"on":1},"printer":null,"response":{"ok":1}}"#,
        ] {
            let page = decode(text.as_bytes());
            assert!(page.wifi_ssid.is_none() && page.ap.is_none(), "{text}");
            assert!(page.printer.is_none() && page.response.is_none(), "{text}");
        }
        let long = format!(r#"{{"sta":{{"hostname":"{}"}}}}"#, "x".repeat(200));
        assert_eq!(decode(long.as_bytes()).hostname, None);
        let unbound = decode(br#"{"printer":{"name":"","host":"","port":0,"state":0}}"#);
        let unbound = unbound.printer.unwrap();
        assert!(!unbound.bound && unbound.klipper.is_none());
        assert!(decode(br#"{"wifi":{"scan":1}}"#).wifi_found.is_none());
    }

    #[test]
    fn frames_are_as_the_firmware_reads_them() {
        for (frame, expected) in [
            (scan_wifi(), r#"{"wifi":{"scan":1}}"#),
            (
                join_wifi("a\"b", ""),
                r#"{"wifi":{"password":"","ssid":"a\"b"}}"#,
            ),
            (hostname("Breath2"), r#"{"sta":{"hostname":"Breath2"}}"#),
            (access_point_on(false), r#"{"ap":{"on":0}}"#),
            (
                set_access_point("s", "p", "10.0.0.1"),
                r#"{"ap":{"ip":"10.0.0.1","password":"p","ssid":"s"}}"#,
            ),
            (
                bind_klipper("voron", "192.0.2.20:7125".parse().unwrap()),
                r#"{"printer":{"ip":"192.0.2.20","name":"voron","port":7125}}"#,
            ),
            (unbind_printer(), r#"{"printer":{"disconnect":1}}"#),
            (
                language(Language::Chinese),
                r#"{"settings":{"language":"zh"}}"#,
            ),
            (
                printer_type(PrinterType::Klipper),
                r#"{"settings":{"printer_type":2}}"#,
            ),
            (restart(), r#"{"settings":{"reset":1}}"#),
            (factory_reset(), r#"{"settings":{"factory_reset":1}}"#),
        ] {
            assert_eq!(frame, expected);
        }
    }
}
