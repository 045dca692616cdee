//! The address of a broker, as `--broker` takes it.

use std::fmt::Write;

use crate::driver::mqtt::{Broker, Login};

/// Reads `mqtt://[user:password@]host[:port]`; what is special in it is written as `%XX`.
pub fn broker(text: &str) -> Result<Broker, String> {
    // Never repeats the text: it may hold a password.
    let rest = text
        .strip_prefix("mqtt://")
        .ok_or("a broker is written as mqtt://[user:password@]host[:port]")?;
    let rest = rest.trim_end_matches('/');
    let (login, place) = match rest.rsplit_once('@') {
        None => (None, rest),
        Some((login, place)) => {
            let (username, password) = login
                .split_once(':')
                .ok_or("a login is written as user:password")?;
            let login = Login {
                username: decoded(username)?,
                password: decoded(password)?,
            };
            (Some(login), place)
        }
    };
    let (host, port) = match place.strip_prefix('[') {
        Some(place) => place.split_once(']').ok_or("the bracket is not closed")?,
        None => place.split_at(place.find(':').unwrap_or(place.len())),
    };
    let port = match port.strip_prefix(':') {
        None if port.is_empty() => DEFAULT_PORT,
        None => return Err("after the bracket comes :port".to_owned()),
        Some(port) => port
            .parse()
            .ok()
            .filter(|port| *port > 0)
            .ok_or("the port is not a number from 1 to 65535")?,
    };
    if host.is_empty() {
        return Err("the host is missing".to_owned());
    }
    Ok(Broker {
        host: host.to_owned(),
        port,
        login,
        tls: None,
    })
}

/// The address again, without the login.
pub fn address(broker: &Broker) -> String {
    let mut text = "mqtt://".to_owned();
    let result = if broker.host.contains(':') {
        write!(text, "[{}]:{}", broker.host, broker.port)
    } else {
        write!(text, "{}:{}", broker.host, broker.port)
    };
    debug_assert!(result.is_ok(), "a String takes everything");
    text
}

fn decoded(text: &str) -> Result<String, String> {
    let wrong = || "a % in a login must be followed by two hex digits".to_owned();
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [byte, after @ ..] = rest {
        rest = after;
        if *byte != b'%' {
            bytes.push(*byte);
            continue;
        }
        let digits = after
            .get(..2)
            .and_then(|digits| std::str::from_utf8(digits).ok());
        let digits = digits.filter(|digits| digits.bytes().all(|digit| digit.is_ascii_hexdigit()));
        let digits = digits.ok_or_else(wrong)?;
        bytes.push(u8::from_str_radix(digits, 16).map_err(|_| wrong())?);
        rest = &after[2..];
    }
    String::from_utf8(bytes).map_err(|_| "the login is not UTF-8".to_owned())
}

const DEFAULT_PORT: u16 = 1883;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_may_have_a_login_and_a_port() {
        let plain = broker("mqtt://broker.local").unwrap();
        assert_eq!((plain.host.as_str(), plain.port), ("broker.local", 1883));
        assert_eq!(plain.login, None);
        let full = broker("mqtt://me:a%40b:c@[::1]:1884/").unwrap();
        assert_eq!((full.host.as_str(), full.port), ("::1", 1884));
        let login = full.login.clone().unwrap();
        assert_eq!(
            (login.username.as_str(), login.password.as_str()),
            ("me", "a@b:c")
        );
        assert_eq!(address(&full), "mqtt://[::1]:1884");
        assert_eq!(address(&plain), "mqtt://broker.local:1883");
    }

    #[test]
    fn a_mistake_is_named_and_the_password_is_not() {
        for text in [
            "broker",
            "mqtts://h",
            "mqtt://",
            "mqtt://h:0",
            "mqtt://h:x",
            "mqtt://me@h",
            "mqtt://me:geheim%@h",
            "mqtt://me:geheim@",
            "mqtt://me:geheim@[::1",
            "mqtt://me:geheim@[::1]1",
        ] {
            let error = broker(text).unwrap_err();
            assert!(!error.contains("geheim"), "{error}");
        }
    }
}
