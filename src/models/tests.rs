use super::*;

fn description(name: &str) -> Description {
    Description {
        name: name.into(),
        names: vec![format!("org/{name}")],
        aliases: Vec::new(),
        preload: true,
        pinned: false,
        required: true,
    }
}

/// Finds no model's files.
struct Broken;

impl Load for Broken {
    fn find(&self, place: usize) -> Result<Found, Unusable> {
        Err(format!("/secret/{place} is gone").into())
    }
}

fn models(change: impl Fn(usize, &mut Description)) -> Models {
    let mut all: Vec<Description> = ["a", "b", "c"].map(description).into();
    for (place, description) in all.iter_mut().enumerate() {
        change(place, description);
    }
    Models::new(all, Arc::new(Broken), None)
}

fn states(models: &Models) -> Vec<State> {
    models.list().iter().map(|status| status.state).collect()
}

#[tokio::test]
async fn a_name_finds_the_model_that_it_fits_best() {
    let models = models(|place, model| {
        model.aliases = vec![["rerank-*", "rerank-large-*", "x"][place].into()];
    });
    let all = models.lock();
    for (name, place) in [
        ("", 0),
        ("b", 1),
        ("org/c", 2),
        ("rerank-v3", 0),
        ("rerank-large-v3", 1),
        ("x", 2),
    ] {
        assert_eq!(all.find(Some(name)), Ok(place), "{name}");
    }
    assert_eq!(all.find(None), Ok(0));
    let error = all.find(Some("y")).unwrap_err().to_string();
    assert_eq!(
        error,
        "model \"y\" is not served here; this server runs \"a\", \"b\", \"c\" (leave \"model\" out, or send \
         one of those names)"
    );
}

#[test]
fn an_error_lists_some_of_many_names() {
    let names: Vec<String> = (0..25).map(|i| format!("m{i}")).collect();
    let told = listed(&names);
    assert!(
        told.contains("\"m9\" and 15 more") && !told.contains("m10"),
        "{told}"
    );
    assert_eq!(
        listed(&names[..1]),
        "\"m0\" (leave \"model\" out, or send that name)"
    );
}

#[tokio::test]
async fn the_start_ends_at_the_first_model_that_it_needs_and_goes_on_after_others() {
    let models = models(|place, model| model.required = place == 1);
    assert_eq!(states(&models), [State::Waiting; 3]);
    assert_eq!(models.ready(), Err(ModelError::Loading));
    assert_eq!(models.any(), Err(ModelError::Loading));
    let error = models.start().await.unwrap_err().to_string();
    assert_eq!(error, "model \"b\": /secret/1 is gone");
    assert_eq!(
        states(&models),
        [State::Failed, State::Failed, State::Waiting]
    );
    let failed = models.ready().unwrap_err();
    assert!(
        matches!(&failed, ModelError::Failed { name, retry_after }
            if name == "b" && (50.0..=60.0).contains(&retry_after.as_secs_f64())),
        "{failed:?}"
    );
    let told = models.get(Some("a")).unwrap_err().to_string();
    assert!(told.contains("\"a\"") && !told.contains("secret"), "{told}");
}

#[tokio::test]
async fn a_model_that_is_not_preloaded_is_loaded_by_a_request_and_not_by_a_look() {
    let models = models(|_, model| model.preload = false);
    models.start().await.unwrap();
    assert_eq!(models.ready(), Ok(()));
    let idle = ModelError::Idle("b".into());
    assert_eq!(models.peek(Some("b")).unwrap_err(), idle);
    assert_eq!(states(&models), [State::Unloaded; 3]);
    assert_eq!(models.get(Some("b")).unwrap_err(), ModelError::Loading);
    assert_eq!(states(&models)[1], State::Loading);
    // It waits for its turn until this one is over.
    let error = models.load("c").await.unwrap_err();
    assert!(matches!(error, LoadError::Failed { .. }), "{error}");
    assert_eq!(states(&models)[1..], [State::Failed; 2]);
}

#[tokio::test]
async fn what_an_operator_has_unloaded_stays_so() {
    let models = models(|_, _| {});
    models.unload("a").await.unwrap();
    models.start().await.unwrap_err();
    let unloaded = ModelError::Unloaded("a".into());
    assert_eq!(models.get(None).unwrap_err(), unloaded);
    assert_eq!(models.ready().unwrap_err(), unloaded);
    assert_eq!(states(&models)[0], State::Unloaded);
    assert!(models.unload("x").await.is_err() && models.load("x").await.is_err());
}

/// Its files make the loader panic.
struct Panics;

impl Load for Panics {
    fn find(&self, _: usize) -> Result<Found, Unusable> {
        panic!("the test's fault")
    }
}

#[tokio::test]
async fn a_panic_of_the_loader_is_one_models_failure() {
    let models = Models::new(vec![description("a")], Arc::new(Panics), None);
    let error = models.start().await.unwrap_err().to_string();
    assert_eq!(error, "model \"a\": loading it panicked");
    assert_eq!(states(&models), [State::Failed]);
    assert!(models.load("a").await.is_err(), "the next one has its turn");
}

#[tokio::test]
async fn nothing_is_loaded_once_the_server_stops() {
    let models = models(|_, model| model.preload = false);
    models.close();
    assert!(models.get(None).is_err());
    assert_eq!(states(&models), [State::Unloaded; 3]);
}
