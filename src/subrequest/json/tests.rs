//! What is read is what was written, digit by digit, and nothing that is not JSON is.

use proptest::prelude::*;

use super::*;

fn read(text: &str) -> Result<Json, Fault> {
    parse(text.as_bytes(), 8)
}

fn again(text: &str) -> String {
    String::from_utf8(read(text).unwrap().to_vec()).unwrap()
}

#[test]
fn digits_and_order_stay() {
    for text in [
        r#"{"z":12345678901234567890123,"a":1.10,"m":-0,"e":1E+2,"tiny":1e-400}"#,
        r#"[[],{},"",null,true,false,0.1e1]"#,
        r#"{"2":1,"1":2,"":3}"#,
    ] {
        assert_eq!(again(text), text);
    }
    assert_eq!(again(" { \"a\" : [ 1 , 2 ] }\r\n\t"), r#"{"a":[1,2]}"#);
    assert_eq!(again("\u{feff}1"), "1");
}

#[test]
fn strings_are_decoded_and_escaped_again() {
    assert_eq!(read(r#""\u0041\ud83d\ude00\/\n""#).unwrap(), Json::string("A\u{1f600}/\n"));
    assert_eq!(again(r#""\u0000\u001f\u007f\"\\\b\f""#), "\"\\u0000\\u001f\u{7f}\\\"\\\\\\b\\f\"");
}

#[test]
fn what_is_not_json_is_refused() {
    for text in [
        "",
        " ",
        "{",
        "[1,]",
        "{\"a\":1,}",
        "{a:1}",
        "{\"a\"}",
        "01",
        "-",
        "1.",
        ".5",
        "+1",
        "1e",
        "0x1",
        "NaN",
        "tru",
        "nulll",
        "1 2",
        "'a'",
        "\"\\x\"",
        "\"\\u12\"",
        "\"\\ud800\"",
        "\"\\ud800\\u0041\"",
        "\"\\udc00\"",
        "\"\t\"",
        "\"a",
        "<html>",
    ] {
        assert_eq!(read(text), Err(Fault::Syntax), "{text}");
    }
    assert_eq!(parse(b"\"\xff\"", 8), Err(Fault::NotUtf8));
    assert_eq!(read(r#"{"a":1,"\u0061":2}"#), Err(Fault::DuplicateKey));
    assert_eq!(read(r#"[{"a":{"b":1,"b":1}}]"#), Err(Fault::DuplicateKey));
}

#[test]
fn depth_is_bounded() {
    let nested = |levels: usize| "[".repeat(levels) + &"]".repeat(levels);
    assert!(read(&nested(8)).is_ok());
    assert_eq!(read(&nested(9)), Err(Fault::TooDeep));
    assert_eq!(parse(nested(10_000).as_bytes(), usize::MAX), Err(Fault::TooDeep));
    assert_eq!(parse("{\"a\":".repeat(10_000).as_bytes(), usize::MAX), Err(Fault::TooDeep));
}

#[test]
fn paths_lead_through_objects_and_arrays() {
    let value = read(r#"{"a":[{"b":7},{"b":8}],"0":"x"}"#).unwrap();
    let at = |path: &str| {
        let path: Vec<Box<str>> = path.split('.').map(Into::into).collect();
        value.at(&path).cloned()
    };
    assert_eq!(at("a.1.b"), Some(Json::integer(8)));
    assert_eq!(at("0"), Some(Json::string("x")));
    assert_eq!((at("a.2"), at("a.b"), at("0.0")), (None, None, None));
    assert_eq!(Json::integer(8).as_text(), Some("8"));
    assert_eq!((Json::Null.as_text(), Json::object().as_text()), (None, None));
}

proptest! {
    /// Whatever this takes, a known reader takes as well, and understands the same.
    #[test]
    fn a_known_reader_agrees(text in "[\\[\\]{}:,\"0-9.eE+\\-a\\\\nu tf ]{0,24}") {
        let known = serde_json::from_str::<serde_json::Value>(&text);
        match read(&text) {
            Ok(value) => {
                let written = String::from_utf8(value.to_vec()).unwrap();
                match known {
                    Ok(known) => {
                        prop_assert_eq!(serde_json::from_str::<serde_json::Value>(&written).unwrap(), known)
                    }
                    // Theirs does not take numbers that no float can hold.
                    Err(error) => prop_assert!(error.to_string().contains("out of range"), "{}", text),
                }
            }
            Err(Fault::DuplicateKey | Fault::TooDeep) => {}
            Err(_) => prop_assert!(known.is_err(), "{}", text),
        }
    }

    #[test]
    fn strings_survive(text in any::<String>()) {
        let written = Json::string(&text).to_vec();
        prop_assert_eq!(parse(&written, 0).unwrap(), Json::string(&text));
        prop_assert_eq!(serde_json::from_slice::<String>(&written).unwrap(), text);
    }
}
