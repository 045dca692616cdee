//! The stock firmware's JSON: frames on one connection, and the root `ha`.

#![no_main]

use libfuzzer_sys::fuzz_target;
use panda_breath_fuzz::dialect::stock::{Stock, ha};
use panda_breath_fuzz::dialect::{Setting, Target};
use panda_breath_fuzz::script::Script;

fuzz_target!(|data: &[u8]| {
    let mut stock = Stock::default();
    let mut script = Script(data);
    while !script.0.is_empty() {
        let frame = script.text();
        if let Ok(report) = stock.decode(frame) {
            assert!(
                report.reading.is_none_or(|c| (-40.0..=150.0).contains(&c)),
                "R5"
            );
            assert!(report.target.is_none_or(|c| (0.0..=255.0).contains(&c)));
            assert!(
                report
                    .firmware
                    .is_none_or(|firmware| firmware.as_str().len() < 24),
                "R6"
            );
            assert!(!report.is_snapshot() || report.is_from_device());
        }
        if let Ok(snapshot) = ha::decode(frame) {
            assert!(snapshot.id.is_none_or(|id| id.as_str().len() == 12));
        }
        let heat = stock.encode(Setting::Heat(Target::whole(45)));
        assert!(heat.contains(r#"temp":45,"work_on":true"#), "{heat}");
    }
});
