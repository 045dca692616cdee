//! What is asked, and what is refused.

use super::*;

#[tokio::test]
async fn a_question_is_asked_with_no_connection_open_and_no_means_no() {
    for (agrees, error) in [(Some(false), "nothing was done"), (None, "")] {
        let simulator = device(Firmware::V1_0_3);
        for line in [
            "reboot HOST NOBODY",
            "factory-reset HOST NOBODY",
            "printer-type HOST klipper NOBODY",
            "wifi join HOST Neighbour NOBODY --hidden",
            "ap set HOST --ip 10.0.0.1",
        ] {
            let mut person = script();
            person.agrees = agrees;
            let (result, _) = run_with(&simulator, line, &mut person, patience()).await;
            assert!(result.unwrap_err().contains(error), "{line}");
            assert!(!person.questions.is_empty(), "{line}");
        }
        assert!(frames(&simulator).is_empty());
        assert_eq!(downs(&simulator), 0);
    }
    let simulator = std::sync::Arc::new(device(Firmware::V1_0_3));
    let mut person = script();
    person.agrees = Some(true);
    let peer = std::sync::Arc::clone(&simulator);
    person.meanwhile = Some(Box::new(move || {
        let close = |entry: &_core::sim::Entry| matches!(entry.event, Event::Close { open: 0, .. });
        assert!(peer.wait_for(close, LIMIT).is_some(), "none is open");
        peer.inject("button on").unwrap();
    }));
    let (result, _) = run_with(&simulator, "reboot HOST NOBODY", &mut person, patience()).await;
    let error = result.unwrap_err();
    assert!(error.contains("is on (mode on) and may heat"), "{error}");
    assert!(
        frames(&simulator).is_empty(),
        "it was turned on while the question stood"
    );
}

#[tokio::test]
async fn what_interrupts_is_refused_while_the_device_may_heat() {
    let file = image("heats", 300);
    let simulator = start(|options| options.setup.firmware = Firmware::V1_0_3);
    simulator.inject("button on").unwrap();
    for line in [
        "reboot HOST --yes NOBODY",
        "factory-reset HOST --yes NOBODY",
        "printer-type HOST klipper --yes NOBODY",
        "wifi scan HOST",
        "wifi join HOST Neighbour --yes NOBODY",
        "wifi join HOST Neighbour --yes --hidden NOBODY",
        "ap set HOST --ip 10.0.0.1 --yes",
        &format!("update HOST {} --yes NOBODY", file.display()),
    ] {
        let (result, _) = run(&simulator, line).await;
        let error = result.unwrap_err();
        assert!(
            error.contains("is on (mode on) and may heat"),
            "{line}: {error}"
        );
    }
    assert!(frames(&simulator).is_empty());
    std::fs::remove_file(file).unwrap();
}

#[tokio::test]
async fn what_restarts_the_device_is_refused_while_a_print_runs() {
    let file = image("prints", 300);
    let simulator = device(Firmware::V1_0_3);
    for state in ["printing", "paused"] {
        let at = moonraker(state);
        for line in [
            "reboot HOST --yes",
            "factory-reset HOST --yes",
            "printer-type HOST klipper --yes",
            "wifi join HOST Neighbour --yes --hidden",
            &format!("update HOST {} --yes", file.display()),
        ] {
            let line = format!("{line} --moonraker {at}");
            let (result, _) = run(&simulator, &line).await;
            let error = result.unwrap_err();
            assert!(
                error.contains(&format!("a print runs (Moonraker at {at} says '{state}')")),
                "{error}"
            );
        }
    }
    assert!(frames(&simulator).is_empty());
    let line = format!("reboot HOST --yes --moonraker {}", moonraker("complete"));
    let (result, text) = run(&simulator, &line).await;
    assert_eq!(result, Ok(()));
    assert!(!text.contains("not known"), "{text}");
    std::fs::remove_file(file).unwrap();
}

#[tokio::test]
async fn the_printer_that_the_device_is_bound_to_is_asked_as_well() {
    let simulator = device(Firmware::V1_0_3);
    run(&simulator, "printer-type HOST klipper --yes NOBODY")
        .await
        .0
        .unwrap();
    let at = moonraker("printing");
    let line = format!("bind-klipper HOST --loopback --moonraker {at}");
    let (result, text) = run(&simulator, &line).await;
    assert_eq!(result, Ok(()), "{text}");
    let (result, _) = run(&simulator, "reboot HOST --yes NOBODY").await;
    let error = result.unwrap_err();
    assert!(
        error.contains("the printer that the device is bound to says 'printing'"),
        "{error}"
    );
    assert!(!error.contains(&at), "{error}");
}
