//! openapi.yaml is what the code generates, the document is true of the server, and the pages that show it
//! work offline.

use std::collections::BTreeSet;

use reqwest::{Method, StatusCode};
use serde_json::{Map, Value, json};

use crate::support::app::{TestApp, send};
use crate::support::models::root;

#[test]
fn openapi_yaml_is_what_the_code_generates() {
    let committed = std::fs::read_to_string(root().join("openapi.yaml")).unwrap();
    let generated = rerankd::http::openapi_yaml().unwrap();
    assert!(
        committed == generated,
        "openapi.yaml is out of date; run: cargo run --release -- openapi > openapi.yaml"
    );
}

/// A path of the document with one of its methods.
struct Operation<'a> {
    path: &'a str,
    method: Method,
    described: &'a Value,
}

impl Operation<'_> {
    /// The path with its parameters' examples.
    fn url(&self) -> String {
        let parameters = self.described["parameters"].as_array();
        let parameters = parameters.into_iter().flatten();
        let parameters = parameters.filter(|parameter| parameter["in"] == "path");
        let url = parameters.fold(self.path.to_owned(), |url, parameter| {
            let (name, example) = (&parameter["name"], &parameter["example"]);
            let (name, example) = (name.as_str().unwrap(), example.as_str().unwrap());
            url.replace(&format!("{{{name}}}"), example)
        });
        assert!(!url.contains('{'), "{url}: a parameter has no example");
        url
    }

    /// The examples of its request's body.
    fn bodies(&self) -> Vec<&Value> {
        let bodies = examples(&self.described["requestBody"]["content"]["application/json"]);
        let is_get = self.method == Method::GET;
        assert_eq!(bodies.is_empty(), is_get, "{}", self.path);
        bodies
    }

    /// What it says of the answers with this status, if anything: its examples and its schema.
    fn answer(&self, status: u16) -> Option<(Vec<&Value>, &Value)> {
        let content = self.described["responses"][status.to_string()]["content"].as_object()?;
        let content = content.values().next()?;
        Some((examples(content), &content["schema"]))
    }

    /// The statuses of its errors.
    fn errors(&self) -> Vec<u16> {
        let statuses = self.described["responses"].as_object().unwrap().keys();
        let statuses = statuses.map(|status| status.parse().unwrap());
        statuses.filter(|&status| status >= 400).collect()
    }
}

fn examples(content: &Value) -> Vec<&Value> {
    let several = content["examples"].as_object();
    let several = several.into_iter().flat_map(Map::values);
    let one = content.get("example").into_iter();
    one.chain(several.map(|example| &example["value"]))
        .collect()
}

fn operations(document: &Value) -> Vec<Operation<'_>> {
    let paths = document["paths"].as_object().unwrap();
    let operations = paths.iter().flat_map(|(path, item)| {
        let item = item.as_object().unwrap().iter();
        item.map(|(method, described)| Operation {
            path,
            method: method.to_uppercase().parse().unwrap(),
            described,
        })
    });
    let operations: Vec<Operation<'_>> = operations.collect();
    assert!(operations.len() > 35, "{}", operations.len());
    // Generated clients name their functions so.
    let ids: BTreeSet<&str> = operations
        .iter()
        .map(|operation| operation.described["operationId"].as_str().unwrap())
        .collect();
    assert_eq!(ids.len(), operations.len(), "{ids:?}");
    operations
}

/// Whether a value is what a schema describes, as far as the document's schemas go: types, required and
/// known properties, items, alternatives.
fn check(value: &Value, schema: &Value, document: &Value) -> Result<(), String> {
    if let Some(reference) = schema["$ref"].as_str() {
        let schema = document.pointer(reference.trim_start_matches('#'));
        return check(value, schema.unwrap(), document);
    }
    if let Some(alternatives) = schema["oneOf"].as_array() {
        let checked = alternatives.iter().map(|s| check(value, s, document));
        let wrong: Vec<String> = checked.filter_map(Result::err).collect();
        let fits = wrong.len() < alternatives.len();
        return if fits { Ok(()) } else { Err(wrong.join("; ")) };
    }
    let is_a = |name: &Value| match name.as_str().unwrap() {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "number" => value.is_number(),
        "integer" => value.is_u64() || value.is_i64(),
        "boolean" => value.is_boolean(),
        "null" => value.is_null(),
        other => panic!("{other}"),
    };
    let fits = match &schema["type"] {
        name @ Value::String(_) => is_a(name),
        Value::Array(names) => names.iter().any(is_a),
        _ => true,
    };
    if !fits {
        return Err(format!("{value} is no {}", schema["type"]));
    }
    if let (Some(object), Some(properties)) = (value.as_object(), schema["properties"].as_object())
    {
        for name in schema["required"].as_array().into_iter().flatten() {
            let name = name.as_str().unwrap();
            object
                .get(name)
                .ok_or_else(|| format!("{name} is missing"))?;
        }
        for (name, value) in object {
            let property = properties.get(name);
            let property = property.ok_or_else(|| format!("{name} is not described"))?;
            check(value, property, document)?;
        }
    }
    for item in value.as_array().into_iter().flatten() {
        check(item, &schema["items"], document)?;
    }
    Ok(())
}

/// The names in a body, with the types of what stands under them.
fn form(value: &Value) -> Value {
    match value {
        Value::Object(object) => object.iter().map(|(k, v)| (k.clone(), form(v))).collect(),
        Value::Array(items) => items.iter().map(form).collect(),
        Value::String(_) => "string".into(),
        Value::Number(_) => "number".into(),
        other => other.clone(),
    }
}

#[cfg(feature = "builtin-model")]
#[tokio::test(flavor = "multi_thread")]
async fn every_example_is_answered_as_described_by_the_server_as_it_is_started() {
    let app = TestApp::changed(|s| {
        s.model.id = "builtin".into();
        // For the examples of loading and unloading.
        s.auth.open_admin = true;
    })
    .await;
    let document = app.get("/openapi.json").await.body;
    let mut posted = 0;
    let mut operations = operations(&document);
    // After that there is no model.
    operations.sort_by_key(|operation| operation.path.ends_with("/unload"));
    for operation in operations {
        let url = operation.url();
        let request = || app.request(operation.method.clone(), &url);
        let mut answers = Vec::new();
        for body in operation.bodies() {
            answers.push(send(request().json(body)).await);
            posted += 1;
        }
        if operation.method == Method::GET {
            answers.push(send(request()).await);
        }
        for answer in answers {
            let status = answer.status;
            assert!(status.is_success(), "{url} {status}: {}", answer.body);
            if answer.body == json!("") {
                let content = &operation.described["responses"][status.as_str()]["content"];
                assert!(content.is_null(), "{url} has no body, but one is described");
            } else if let Some((_, schema)) = operation.answer(status.as_u16()) {
                assert_eq!(check(&answer.body, schema, &document), Ok(()), "{url}");
            } else {
                assert_eq!(status, StatusCode::NO_CONTENT, "{url}");
            }
        }
    }
    assert!(posted > 25, "{posted}");
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn each_errors_example_is_that_errors_body() {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "ops k admin\n").unwrap();
    let app = TestApp::changed(|s| {
        s.auth.keys_file = file.path().to_owned();
        s.auth.protect_metrics = true;
        s.model.served_name = "rerankd-builtin".into();
    })
    .await;
    let document = app.get("/openapi.json").await.body;
    let mut compared = BTreeSet::new();
    for operation in operations(&document) {
        let what = format!("{} {}", operation.method, operation.path);
        for status in operation.errors() {
            let (examples, schema) = operation.answer(status).unwrap();
            assert!(!examples.is_empty(), "{what} {status}");
            for example in examples {
                assert_eq!(check(example, schema, &document), Ok(()), "{what} {status}");
                // Where a body tells its status, it is this one.
                let told = [example.get("status"), example.pointer("/error/code")];
                let mut told = told.into_iter().flatten().filter_map(Value::as_u64);
                let is_this = told.all(|told| told == u64::from(status));
                assert!(is_this, "{what} {status}: {example}");
            }
        }
        let url = operation.url();
        let request = |url: &str| app.request(operation.method.clone(), url);
        let keyed = |url: &str| request(url).bearer_auth("k");
        let mut wrong = vec![(401, request(&url))];
        let other = url.replace("rerankd-builtin", "other-model");
        if other != url {
            let request = keyed(&other);
            let request = match operation.bodies().pop() {
                Some(body) => request.json(body),
                None => request,
            };
            wrong.push((404, request));
        }
        if operation.method == Method::POST {
            let json = keyed(&url).header("content-type", "application/json");
            wrong.push((400, json.body("{\"query\": ")));
            let text = keyed(&url).header("content-type", "text/plain");
            wrong.push((415, text.body("{}")));
            let mut body = operation.bodies()[0].clone();
            body["model"] = json!("other-model");
            // Vertex AI's requests name it in their instances.
            if other == url && operation.path != "/vertex" {
                wrong.push((404, keyed(&url).json(&body)));
            }
        }
        for (status, request) in wrong {
            let Some((examples, _)) = operation.answer(status) else {
                continue;
            };
            let answer = send(request).await;
            assert_eq!(answer.status, status, "{what}: {}", answer.body);
            let mut forms = examples.into_iter().map(form);
            let found = form(&answer.body);
            assert!(forms.any(|form| form == found), "{what} {status}: {found}");
            compared.insert(status);
        }
    }
    assert_eq!(Vec::from_iter(compared), [400, 401, 404, 415]);
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_route_answers_the_methods_that_are_described_and_no_others() {
    let app = TestApp::changed(|s| s.model.served_name = "rerankd-builtin".into()).await;
    let document = app.get("/openapi.json").await.body;
    let operations = operations(&document);
    for operation in &operations {
        let methods = operations.iter().filter(|o| o.path == operation.path);
        let described: Vec<&Method> = methods.map(|o| &o.method).collect();
        for method in ["GET", "POST", "PUT", "PATCH", "DELETE"] {
            let method: Method = method.parse().unwrap();
            let status = send(app.request(method.clone(), &operation.url()))
                .await
                .status;
            let what = format!("{method} {}: {status}", operation.path);
            let is_answered = status != StatusCode::METHOD_NOT_ALLOWED;
            assert_eq!(is_answered, described.contains(&&method), "{what}");
            assert_ne!(status, StatusCode::NOT_FOUND, "{what}");
        }
    }
    app.stop().await;
}

#[test]
fn what_people_come_for_stands_first_and_operations_last() {
    let yaml = rerankd::http::openapi_yaml().unwrap();
    let lines = yaml.lines().skip_while(|line| *line != "paths:");
    let lines: Vec<&str> = lines.take_while(|line| *line != "components:").collect();
    let first = lines.iter().find(|line| line.starts_with("  /"));
    assert_eq!(first, Some(&"  /v1/rerank:"));
    let tags = ["rerank", "score", "models", "operations", "repository"];
    let mut found: Vec<&str> = Vec::new();
    for (i, line) in lines.iter().enumerate() {
        // The root's GET is for health, and stands with its POST.
        if *line == "      tags:" && !lines[..i].ends_with(&["  /:", "    get:"]) {
            found.push(lines[i + 1].trim_start_matches("      - "));
        }
    }
    found.dedup();
    assert_eq!(found, tags);
}

#[tokio::test(flavor = "multi_thread")]
async fn docs_are_a_page_with_all_its_parts_on_this_server() {
    let app = TestApp::start("tiny-bert").await;
    let get = async |path: &str| {
        let answer = app.request(Method::GET, path).send().await.unwrap();
        assert_eq!(answer.status(), 200, "{path}");
        let policy = answer.headers()["content-security-policy"].to_str();
        let policy = policy.unwrap();
        assert!(policy.contains("default-src 'none'; script-src 'self'"));
        assert_eq!(answer.headers()["x-content-type-options"], "nosniff");
        answer.text().await.unwrap()
    };
    let nothing = app.get("/docs/x").await;
    assert_eq!(
        (nothing.status.as_u16(), &nothing.body["code"]),
        (404, &serde_json::json!("not_found"))
    );
    let page = get("/docs/").await;
    let parts: Vec<&str> = page
        .split(['"', '\''])
        .filter(|s| s.ends_with(".js") || s.ends_with(".css"))
        .collect();
    assert!(parts.len() >= 3, "{page}");
    for part in parts {
        assert!(!part.contains("//"), "{part} is on another server");
        let body = get(&format!("/docs/{}", part.trim_start_matches("./"))).await;
        assert!(!body.is_empty(), "{part}");
    }
    assert!(
        get("/docs/swagger-initializer.js")
            .await
            .contains("/openapi.json")
    );
    assert_eq!(
        app.request(Method::GET, "/docs")
            .send()
            .await
            .unwrap()
            .status(),
        200
    );
    app.stop().await;
}
