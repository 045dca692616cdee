//! When a session is to be called again. A turn comes every second in any case, and most of what has
//! to be in time is too short for a scenario to notice: here it is asked for directly.

use super::edges::live;
use super::found::{tell, told_to_heat};
use super::*;

#[test]
fn what_was_asked_for_is_looked_at_when_its_time_has_come() {
    let at = 1_100;
    let mut session = told_to_heat();
    for (after, next) in [
        (0, Some(1_000)), // until then an answer may be one to something earlier
        (999, Some(1_000)),
        (1_000, Some(3_000)), // it is said again
        (2_999, Some(3_000)),
        (3_000, Some(15_000)), // it is given up
        (14_999, Some(15_000)),
        (15_000, None),
    ] {
        let next = next.map(|next| at + next);
        assert_eq!(session.steer_deadline(at + after), next, "{after}");
    }
}

#[test]
fn r2_a_repeated_off_that_has_to_wait_is_said_when_its_time_has_come() {
    let mut session = live();
    let on = br#"{"settings":{"work_on":1,"work_mode":2}}"#;
    for at in 100..110 {
        tell(&mut session, at, Input::Frame(Conn(1), on));
    }
    let due = session.steer_deadline(110).unwrap();
    assert!((1_000..1_200).contains(&due), "{due}");
    assert_eq!(sends(&tell(&mut session, due - 1, Input::Tick)), 0);
    assert_eq!(sends(&tell(&mut session, due, Input::Tick)), 1);
}

fn sends(done: &[Command]) -> usize {
    let sent = |one: &&Command| matches!(one, Command::Send(..));
    done.iter().filter(sent).count()
}
