//! The printer it is bound to.

use super::*;

#[tokio::test]
async fn klipper_is_bound_where_the_firmware_knows_it() {
    let old = device(Firmware::V1_0_2);
    for line in [
        "bind-klipper HOST --moonraker 192.0.2.20",
        "printer-type HOST klipper --yes NOBODY",
    ] {
        let (result, _) = run(&old, line).await;
        let error = result.unwrap_err();
        assert!(
            error.contains("V1.0.2") && error.contains("came with 1.0.3"),
            "{error}"
        );
    }
    assert!(frames(&old).is_empty());

    let simulator = device(Firmware::V1_0_3);
    let bind = "bind-klipper HOST --moonraker 192.0.2.20 --name voron";
    let (result, _) = run(&simulator, bind).await;
    assert!(result.unwrap_err().contains("printer-type"));
    let (result, text) = run(&simulator, "printer-type HOST klipper --yes NOBODY").await;
    assert_eq!(result, Ok(()), "{text}");
    let (_, text) = run(&simulator, "printer-type HOST klipper --yes NOBODY").await;
    assert!(text.contains("already; nothing was sent"), "{text}");
    assert_eq!(downs(&simulator), 1);
    let (result, text) = run(&simulator, bind).await;
    assert_eq!(result, Ok(()), "{text}");
    assert!(
        text.ends_with("It is bound to 192.0.2.20:7125, and connected.\n"),
        "{text}"
    );
    let (_, text) = run(&simulator, bind).await;
    assert!(
        text.contains("already, and connected; nothing was sent"),
        "{text}"
    );
    // Another one takes the place of the first, so that is asked.
    simulator.inject("printer away").unwrap();
    let other = "bind-klipper HOST --moonraker 192.0.2.21";
    let mut person = script();
    person.agrees = Some(true);
    let (result, _) = run_with(&simulator, other, &mut person, patience()).await;
    let error = result.unwrap_err();
    assert!(error.contains("trusted_clients"), "{error}");
    assert!(person.questions[0].contains("another printer"));
    let (result, _) = run(&simulator, "unbind HOST --yes").await;
    assert_eq!(result, Ok(()));
    let (_, text) = run(&simulator, "unbind HOST --yes").await;
    assert!(
        text.contains("not bound to a printer; nothing was sent"),
        "{text}"
    );
}

#[tokio::test]
async fn binding_is_refused_while_auto_may_heat() {
    let simulator = device(Firmware::V1_0_3);
    run(&simulator, "printer-type HOST klipper --yes NOBODY")
        .await
        .0
        .unwrap();
    simulator.inject("button on").unwrap();
    let (result, _) = run(&simulator, "bind-klipper HOST --moonraker 192.0.2.20").await;
    assert!(result.unwrap_err().contains("may heat"));
    let bound = start(|options| options.setup.access_code = Some("ACCESSCODE".to_owned()));
    let (result, _) = run(&bound, "unbind HOST --yes").await;
    assert!(result.unwrap_err().contains("mode auto"));
}
