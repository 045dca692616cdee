//! JSON as the firmware prints it: cJSON's formatted printer, with tabs, newlines and the keys in
//! the order they were added (PROTOCOL section 1.2). `serde_json` would sort and space differently.

/// A value on its way out. The firmware sends no floats, booleans or nulls (section 1.4).
#[derive(Debug, Clone)]
pub(crate) enum Json {
    Int(i64),
    Text(String),
    List(Vec<Json>),
    Object(Object),
}

/// Keys and values in sending order.
pub(crate) type Object = Vec<(&'static str, Json)>;

impl From<i32> for Json {
    fn from(value: i32) -> Self {
        Json::Int(value.into())
    }
}

impl From<u8> for Json {
    fn from(value: u8) -> Self {
        Json::Int(value.into())
    }
}

impl From<u16> for Json {
    fn from(value: u16) -> Self {
        Json::Int(value.into())
    }
}

impl From<u32> for Json {
    fn from(value: u32) -> Self {
        Json::Int(value.into())
    }
}

impl From<bool> for Json {
    /// Outbound switches are the numbers 0 and 1 (section 1.4).
    fn from(value: bool) -> Self {
        Json::Int(value.into())
    }
}

impl From<&str> for Json {
    fn from(value: &str) -> Self {
        Json::Text(value.to_owned())
    }
}

impl From<Object> for Json {
    fn from(value: Object) -> Self {
        Json::Object(value)
    }
}

/// Prints an object the way `cJSON_Print` does.
pub(crate) fn print(object: &Object) -> String {
    let mut out = String::new();
    print_object(&mut out, object, 1);
    out
}

fn print_value(out: &mut String, value: &Json, depth: usize) {
    match value {
        Json::Int(number) => out.push_str(&number.to_string()),
        Json::Text(text) => out.push_str(&serde_json::Value::from(text.as_str()).to_string()),
        Json::Object(object) => print_object(out, object, depth + 1),
        Json::List(items) => {
            out.push('[');
            for (index, item) in items.iter().enumerate() {
                if index > 0 {
                    out.push_str(", ");
                }
                print_value(out, item, depth + 1);
            }
            out.push(']');
        }
    }
}

fn print_object(out: &mut String, object: &Object, depth: usize) {
    out.push_str("{\n");
    for (index, (key, value)) in object.iter().enumerate() {
        out.extend(std::iter::repeat_n('\t', depth));
        out.push('"');
        out.push_str(key);
        out.push_str("\":\t");
        print_value(out, value, depth);
        if index + 1 < object.len() {
            out.push(',');
        }
        out.push('\n');
    }
    out.extend(std::iter::repeat_n('\t', depth - 1));
    out.push('}');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn objects_are_printed_with_tabs_and_in_order() {
        let inner: Object = vec![("z", 1.into()), ("a", "x\"y".into())];
        let list = Json::List(vec![Json::Object(vec![("ssid", "n".into())])]);
        let text = print(&vec![("settings", inner.into()), ("list", list)]);
        assert_eq!(
            text,
            "{\n\t\"settings\":\t{\n\t\t\"z\":\t1,\n\t\t\"a\":\t\"x\\\"y\"\n\t},\n\t\"list\":\t[{\n\t\t\t\"ssid\":\t\"n\"\n\t\t}]\n}"
        );
        assert!(serde_json::from_str::<serde_json::Value>(&text).is_ok());
    }
}
