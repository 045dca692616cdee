//! The root `ha` of firmware 1.0.4: the broker it is bound to, and the frames that bind it.
//!
//! **Nobody has read this firmware.** That the snapshot has the root is the community's word; the
//! frames, and that state 3 means connected, are concluded from how the same firmware is bound to
//! a printer. So nothing is believed that a later snapshot does not confirm.
//!
//! The user name and the password in it are skipped, not read (rule R11).

use std::net::Ipv4Addr;
use std::net::SocketAddrV4; // one line each: the check of purity reads lines

use serde::Deserialize;
use serde::de::{IgnoredAny, MapAccess};
use serde_json::json;

use super::{DecodeError, Lenient, MAX_MESSAGE, Scalar, Shape, decode_error};

/// `state` of a device that is connected to its broker, as for its printer. Unconfirmed.
const CONNECTED: u8 = 3;
/// What the access point of every unit is called before its MAC address.
const ACCESS_POINT: &str = "Panda_Breath_";

/// What a snapshot says about MQTT.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Snapshot {
    /// Its broker; `None`: this firmware knows nothing of brokers.
    pub ha: Option<Ha>,
    /// What the device is called in its topics, where its access point still has the name it came
    /// with.
    pub id: Option<Id>,
}

/// The broker that a device is bound to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ha {
    /// Where the broker is.
    pub bound: Bound,
    /// How far the device has come with it, in the firmware's numbers.
    pub state: Option<u8>,
}

/// Where the broker is that a device is bound to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Bound {
    /// To none.
    #[default]
    Nowhere,
    /// At this address.
    At(SocketAddrV4),
    /// Somewhere else, for example at a name; which, is nobody's business.
    Elsewhere,
}

impl Ha {
    /// Whether the device says that it is connected to its broker.
    pub fn is_connected(self) -> bool {
        self.state == Some(CONNECTED)
    }
}

/// The MAC address of a device, 12 upper-case hexadecimal digits, as it is in its topics.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Id(String);

impl Id {
    /// From the name of the device's access point.
    fn of_access_point(ssid: &str) -> Option<Self> {
        let digits = ssid.strip_prefix(ACCESS_POINT)?;
        let is_mac = digits.len() == 12 && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
        is_mac.then(|| Self(digits.to_ascii_uppercase()))
    }

    /// The digits.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Reads what one message says about MQTT.
pub fn decode(message: &[u8]) -> Result<Snapshot, DecodeError> {
    if message.len() > MAX_MESSAGE {
        return Err(DecodeError::TooLarge(message.len()));
    }
    let snapshot = serde_json::from_slice::<Lenient<Option<Snapshot>>>(message)
        .map_err(|error| decode_error(message, &error))?;
    snapshot.0.ok_or(DecodeError::NotAnObject)
}

/// The frame that binds a device to a broker. Unconfirmed. The firmware reads one frame at a time,
/// so all of it is in one. Without a login both texts are empty.
pub fn bind(broker: SocketAddrV4, user: &str, password: &str) -> String {
    json!({"ha": {
        "ip": broker.ip().to_string(),
        "port": broker.port(),
        "user": user,
        "password": password,
    }})
    .to_string()
}

/// The frame that unbinds a device. Unconfirmed.
pub fn unbind() -> String {
    json!({"ha": {"disconnect": 1}}).to_string()
}

#[derive(Deserialize)]
#[serde(field_identifier, rename_all = "snake_case")]
enum RootKey {
    Ha,
    Ap,
    #[serde(other)]
    Other,
}

#[derive(Deserialize)]
#[serde(field_identifier, rename_all = "snake_case")]
enum HaKey {
    Ip,
    Port,
    State,
    #[serde(other)]
    Other,
}

#[derive(Deserialize)]
#[serde(field_identifier, rename_all = "snake_case")]
enum ApKey {
    Ssid,
    #[serde(other)]
    Other,
}

impl<'de> Shape<'de> for Option<Snapshot> {
    fn other() -> Self {
        None
    }
    fn object<A: MapAccess<'de>>(mut map: A) -> Result<Self, A::Error> {
        let mut snapshot = Snapshot::default();
        while let Some(key) = map.next_key::<RootKey>()? {
            match key {
                RootKey::Ha => snapshot.ha = map.next_value::<Lenient<Option<Ha>>>()?.0,
                RootKey::Ap => snapshot.id = map.next_value::<Lenient<AccessPoint>>()?.0.0,
                RootKey::Other => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        Ok(Some(snapshot))
    }
}

/// What is in `ha.ip`.
enum Place {
    None,
    Ip(Ipv4Addr),
    Other,
}

impl Shape<'_> for Place {
    fn other() -> Self {
        Self::None
    }
    fn text(text: &str) -> Self {
        match text.parse() {
            _ if text.is_empty() => Self::None,
            Ok(Ipv4Addr::UNSPECIFIED) => Self::None,
            Ok(ip) => Self::Ip(ip),
            Err(_) => Self::Other,
        }
    }
}

impl<'de> Shape<'de> for Option<Ha> {
    fn other() -> Self {
        None
    }
    fn object<A: MapAccess<'de>>(mut map: A) -> Result<Self, A::Error> {
        let mut place = Place::None;
        let mut port = None;
        let mut state = None;
        while let Some(key) = map.next_key::<HaKey>()? {
            match key {
                HaKey::Ip => place = map.next_value::<Lenient<Place>>()?.0,
                HaKey::Port => port = map.next_value::<Lenient<Scalar>>()?.0.integer(),
                HaKey::State => state = map.next_value::<Lenient<Scalar>>()?.0.integer(),
                HaKey::Other => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        let bound = match (place, port) {
            (Place::None, _) => Bound::Nowhere,
            (Place::Ip(ip), Some(port)) => Bound::At(SocketAddrV4::new(ip, port)),
            (Place::Ip(_) | Place::Other, _) => Bound::Elsewhere,
        };
        Ok(Some(Ha { bound, state }))
    }
}

struct AccessPoint(Option<Id>);

impl<'de> Shape<'de> for AccessPoint {
    fn other() -> Self {
        Self(None)
    }
    fn object<A: MapAccess<'de>>(mut map: A) -> Result<Self, A::Error> {
        let mut id = None;
        while let Some(key) = map.next_key::<ApKey>()? {
            match key {
                ApKey::Ssid => id = map.next_value::<Lenient<Ssid>>()?.0.0,
                ApKey::Other => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        Ok(Self(id))
    }
}

struct Ssid(Option<Id>);

impl Shape<'_> for Ssid {
    fn other() -> Self {
        Self(None)
    }
    fn text(text: &str) -> Self {
        Self(Id::of_access_point(text))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ha(text: &str) -> Option<Ha> {
        decode(format!(r#"{{"ha":{text}}}"#).as_bytes()).unwrap().ha
    }

    #[test]
    fn a_snapshot_says_which_broker_and_which_device() {
        let message = br#"{"wifi":{"password":"geheim"},
            "ap":{"ssid":"Panda_Breath_aabbccddeeff","password":"geheim"},
            "ha":{"ip":"192.0.2.5","port":1883,"user":"geheim","password":"geheim","state":3}}"#;
        let snapshot = decode(message).unwrap();
        let ha = snapshot.ha.unwrap();
        assert_eq!(ha.bound, Bound::At("192.0.2.5:1883".parse().unwrap()));
        assert!(ha.is_connected());
        assert_eq!(snapshot.id.as_ref().unwrap().as_str(), "AABBCCDDEEFF");
        assert!(!format!("{snapshot:?}").contains("geheim"), "rule R11");
    }

    #[test]
    fn a_firmware_without_the_root_is_not_one_that_is_unbound() {
        assert_eq!(
            decode(br#"{"settings":{"fw_version":"V1.0.3"}}"#).unwrap(),
            Snapshot::default()
        );
        for unbound in [
            r#"{"ip":"","port":0,"user":"","password":"","state":0}"#,
            r#"{"ip":"0.0.0.0","port":1883,"state":1}"#,
            "{}",
        ] {
            let ha = ha(unbound).unwrap();
            assert_eq!(ha.bound, Bound::Nowhere, "{unbound}");
            assert!(!ha.is_connected());
        }
    }

    #[test]
    fn what_is_no_address_is_somewhere_else() {
        for elsewhere in [
            r#"{"ip":"broker.lan","port":1883}"#,
            r#"{"ip":"192.0.2.5","port":-1}"#,
            r#"{"ip":"192.0.2.5","port":"1883"}"#,
        ] {
            assert_eq!(
                ha(elsewhere).unwrap().bound,
                Bound::Elsewhere,
                "{elsewhere}"
            );
        }
        assert_eq!(ha(r#"{"state":"3"}"#).unwrap().state, None);
        assert_eq!(ha("7"), None);
    }

    #[test]
    fn only_the_name_that_a_unit_came_with_shows_its_id() {
        for name in [
            "Panda_Breath_AABBCCDDEEF",
            "Panda_Breath_AABBCCDDEEFFAA",
            "Panda_Breath_AABBCCDDEEFG",
            "my home",
            "",
        ] {
            assert_eq!(Id::of_access_point(name), None, "{name}");
        }
    }

    #[test]
    fn what_is_no_object_is_an_error() {
        assert_eq!(decode(b"[]"), Err(DecodeError::NotAnObject));
        assert!(matches!(decode(b"{"), Err(DecodeError::NotJson(_))));
        let large = vec![b' '; MAX_MESSAGE + 1];
        assert_eq!(decode(&large), Err(DecodeError::TooLarge(large.len())));
        let mut just = b"{}".to_vec();
        just.resize(65_536, b' ');
        assert_eq!(decode(&just), Ok(Snapshot::default()));
    }

    #[test]
    fn the_frames_are_as_the_firmware_is_thought_to_read_them() {
        let broker = "192.0.2.5:1884".parse().unwrap();
        assert_eq!(
            serde_json::from_str::<serde_json::Value>(&bind(broker, "me", r#"a"b\"#)).unwrap(),
            json!({"ha": {"ip": "192.0.2.5", "port": 1884, "user": "me", "password": r#"a"b\"#}})
        );
        assert_eq!(unbind(), r#"{"ha":{"disconnect":1}}"#);
    }
}
