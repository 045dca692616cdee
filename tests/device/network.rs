//! Wi-Fi, name and access point.

use super::*;

#[tokio::test]
async fn a_scan_lists_names_and_nothing_that_is_none() {
    let simulator = start(|options| options.setup.wifi_ssid = "a\u{1b}[2Jb".to_owned());
    simulator.inject("button power").unwrap();
    let (result, text) = run(&simulator, "wifi scan HOST").await;
    assert_eq!(result, Ok(()));
    assert!(text.ends_with("  Neighbour\n  a?[2Jb\n"), "{text:?}");
    let slow = start(|options| options.speed = 0.1);
    slow.inject("button power").unwrap();
    let (result, _) = run_with(&slow, "wifi scan HOST", &mut script(), impatience()).await;
    assert!(result.unwrap_err().contains("has not told what it sees"));
}

#[tokio::test]
async fn a_network_is_joined_and_the_device_met_there() {
    let simulator = device(Firmware::V1_0_3);
    let mut person = script();
    person.password = "not-their-password";
    let line = "wifi join HOST Neighbour --yes NOBODY";
    let (result, text) = run_with(&simulator, line, &mut person, patience()).await;
    assert_eq!(result, Ok(()), "{text}");
    assert!(text.contains("It is in 'Neighbour' now"), "{text}");
    assert_eq!(person.questions, ["Password of the network 'Neighbour': "]);
    let sent = frames(&simulator);
    assert_eq!(sent[0]["wifi"]["scan"], 1);
    assert_eq!(sent[1]["wifi"]["ssid"], "Neighbour");
    assert_eq!(sent.len(), 2);
    assert_eq!(most_open(&simulator), 1);
}

#[tokio::test]
async fn a_network_that_is_not_seen_is_joined_only_when_asked() {
    let simulator = device(Firmware::V1_0_3);
    let (result, _) = run(&simulator, "wifi join HOST Neighbor --yes NOBODY").await;
    let error = result.unwrap_err();
    assert!(
        error.contains("does not see a network 'Neighbor'"),
        "{error}"
    );
    assert_eq!(frames(&simulator).len(), 1, "the scan");
    let line = "wifi join HOST Neighbor --yes --hidden NOBODY";
    let (result, _) = run_with(&simulator, line, &mut script(), impatience()).await;
    let error = result.unwrap_err();
    assert!(error.contains("has not been seen in 'Neighbor'"), "{error}");
}

#[tokio::test]
async fn a_wrong_password_is_said_where_the_device_can_say_so() {
    let simulator = device(Firmware::V1_0_3);
    run(&simulator, "ap on HOST").await.0.unwrap();
    let line = "wifi join HOST Neighbour --yes NOBODY";
    let (result, _) = run(&simulator, line).await;
    let error = result.unwrap_err();
    assert!(
        error.contains("password of 'Neighbour' is wrong"),
        "{error}"
    );
    let mut person = script();
    person.password = "short";
    let (result, _) = run_with(&simulator, line, &mut person, patience()).await;
    assert!(result.unwrap_err().contains("8 to 63 characters"));
}

#[tokio::test]
async fn a_hostname_is_acknowledged_and_counts_after_a_restart() {
    let simulator = device(Firmware::V1_0_3);
    let (result, text) = run(&simulator, "hostname HOST Breath2").await;
    assert_eq!(result, Ok(()));
    assert!(text.contains("Breath2.local after a restart"), "{text}");
    run(&simulator, "reboot HOST --yes NOBODY").await.0.unwrap();
    let (_, text) = run(&simulator, "status HOST").await;
    assert!(text.contains("Breath2"), "{text}");
    simulator.inject("mute 20").unwrap();
    simulator.inject("hang all").unwrap();
    let line = "hostname HOST Breath3";
    let (result, _) = run_with(&simulator, line, &mut script(), impatience()).await;
    assert!(result.is_err());
}

#[tokio::test]
async fn the_access_point_is_switched_once_and_changed_as_a_whole() {
    let simulator = device(Firmware::V1_0_3);
    let (_, text) = run(&simulator, "ap off HOST --yes").await;
    assert!(text.contains("off already; nothing was sent"), "{text}");
    let (result, text) = run(&simulator, "ap on HOST").await;
    assert_eq!(result, Ok(()), "{text}");
    let (_, text) = run(&simulator, "ap on HOST").await;
    assert!(text.contains("on already; nothing was sent"), "{text}");
    run(&simulator, "ap off HOST --yes").await.0.unwrap();
    let (result, text) = run(&simulator, "ap set HOST --ip 10.9.8.7 --yes").await;
    assert_eq!(result, Ok(()));
    assert!(text.contains("counts after a restart"), "{text}");
    let (result, text) = run(&simulator, "ap set HOST --new-password --yes").await;
    assert_eq!(result, Ok(()));
    assert!(!text.contains("restart"), "{text}");
    let sent = frames(&simulator);
    assert_eq!(
        (&sent[0]["ap"]["on"], &sent[1]["ap"]["on"]),
        (&1.into(), &0.into())
    );
    assert_eq!(sent[2]["ap"]["password"], "987654321", "as it was");
    assert_eq!(sent[3]["ap"]["password"], "geheim12");
    assert_eq!(sent[3]["ap"]["ip"], "10.9.8.7");
    assert_eq!(sent.len(), 4);
}

#[tokio::test]
async fn another_name_of_the_access_point_is_another_device_for_klipper_and_that_is_said() {
    let simulator = device(Firmware::V1_0_3);
    let words = "ap set HOST --name Cellar";
    let mut person = Script {
        agrees: Some(true),
        ..script()
    };
    let (result, text) = run_with(&simulator, words, &mut person, patience()).await;
    assert_eq!(result, Ok(()), "{text}");
    assert!(
        person.questions[0].contains("takes it for another one"),
        "{:?}",
        person.questions
    );
    // Who answers beforehand is told all the same, and which one it is now.
    let (result, text) = run(&simulator, "ap set HOST --name Attic --yes").await;
    assert_eq!(result, Ok(()), "{text}");
    let (_, status) = run(&simulator, "status HOST --json").await;
    let status: Value = serde_json::from_str(&status).unwrap();
    let id = status["device_id"].as_str().unwrap();
    assert!(text.contains("restart the Klipper service"), "{text}");
    assert!(text.contains(&format!("device_id: {id}")), "{id}: {text}");
    // The one it has is none.
    let (result, text) = run(&simulator, "ap set HOST --name Attic --yes").await;
    assert_eq!(result, Ok(()), "{text}");
    assert!(!text.contains("device_id"), "{text}");
    let (_, text) = run(&simulator, "ap set HOST --ip 10.9.8.7 --yes").await;
    assert!(!text.contains("device_id"), "{text}");
}
