//! The device says no, or something else than what it was told: hands at its buttons, other
//! clients, its own checks, power cuts. Spoken to directly.

use super::*;

#[test]
fn r9_heat_that_is_late_is_not_taken_for_somebodys_off() {
    let mut world = World::connected();
    world.run(70_000); // a look is due as soon as it heats
    world.lag = 3_000;
    world.set_target(45.0);
    world.run(20_000);
    assert_eq!(world.snapshot().forced_offs, 0, "{:?}", world.lines);
    assert_eq!(world.state(), (1, 45));
    assert_eq!(world.texts(), [HEAT_45]);
}

#[test]
fn r2_an_off_that_is_late_is_nobody_elses_on() {
    let mut world = World::heating();
    world.lag = 1_500;
    world.set_target(0.0);
    world.run(10_000);
    assert_eq!(world.state().0, 0);
    assert!(world.snapshot().off_known);
    assert_eq!(world.lines, Vec::<String>::new());
}
