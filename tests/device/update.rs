//! Firmware files.

use super::*;

#[tokio::test]
async fn an_update_is_sent_whole_and_the_device_says_that_it_has_it() {
    let file = image("whole", 300_000);
    let simulator = device(Firmware::V1_0_3);
    let line = format!("update HOST {} --yes NOBODY", file.display());
    let mut person = script();
    let (result, text) = run_with(&simulator, &line, &mut person, patience()).await;
    assert_eq!(result, Ok(()), "{text}");
    assert!(text.contains("calls itself breath 9.8.7"), "{text}");
    assert!(
        text.ends_with("It runs firmware V1.0.3 now (before: V1.0.3).\n"),
        "{text}"
    );
    let length = std::fs::metadata(&file).unwrap().len();
    assert_eq!(*person.progress.last().unwrap() as u64, length);
    assert!(person.progress.is_sorted() && person.progress.len() > 50);
    assert!(frames(&simulator).is_empty());
    assert_eq!(
        most_open(&simulator),
        2,
        "the file has a connection of its own"
    );
    std::fs::remove_file(file).unwrap();
}

#[tokio::test]
async fn an_update_that_is_slow_arrives_and_one_that_breaks_is_said_to() {
    let file = image("slow", 100_000);
    let simulator = device(Firmware::V1_0_3);
    let line = format!("update HOST {} --yes NOBODY", file.display());
    simulator.inject("upload slow").unwrap();
    let (result, text) = run(&simulator, &line).await;
    assert_eq!(result, Ok(()), "{text}");
    simulator.inject("upload broken").unwrap();
    let (result, _) = run(&simulator, &line).await;
    let error = result.unwrap_err();
    assert!(
        error.contains("broke off after") && error.contains("goes on with"),
        "{error}"
    );
    assert_eq!(downs(&simulator), 1);
    std::fs::remove_file(file).unwrap();
}

#[tokio::test]
async fn an_update_that_nobody_speaks_about_is_not_called_done() {
    let file = image("silent", 10_000);
    let simulator = device(Firmware::V1_0_3);
    simulator.inject("upload silent").unwrap();
    let line = format!("update HOST {} --yes NOBODY", file.display());
    let (result, text) = run(&simulator, &line).await;
    let error = result.unwrap_err();
    assert!(
        error.contains("whether that is the new one is not known"),
        "{error}"
    );
    assert!(
        text.contains("does not say whether it has taken it"),
        "{text}"
    );
    std::fs::remove_file(file).unwrap();
}

#[tokio::test]
async fn a_file_that_is_too_large_or_no_image_never_leaves() {
    let simulator = device(Firmware::V1_0_3);
    let large = image("large", 0x1e_0000);
    let page = std::env::temp_dir().join(format!("device-{}-page.bin", std::process::id()));
    std::fs::write(&page, "<html>not found</html>").unwrap();
    for (file, part) in [(&large, "room for 1966080"), (&page, "no firmware image")] {
        let line = format!("update HOST {} --yes NOBODY", file.display());
        let (result, _) = run(&simulator, &line).await;
        let error = result.unwrap_err();
        assert!(error.contains(part) && error.contains("device-"), "{error}");
        std::fs::remove_file(file).unwrap();
    }
    assert_eq!(most_open(&simulator), 0, "not even asked");
}
