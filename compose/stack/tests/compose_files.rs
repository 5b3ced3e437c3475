//! The Compose files follow the Compose Specification's schema, and rules of ours that no schema tells. No engine is
//! needed for that.

use anyhow::{Context as _, Result, ensure};
use serde_json::{Map, Value};
use std::path::PathBuf;

const FILES: [&str; 4] = ["embedded.yaml", "kafka-elasticsearch.yaml", "kafka-opensearch.yaml", "mysql.yaml"];

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn load(name: &str) -> Result<Value> {
    let path = folder().join(name);
    let text = std::fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
    serde_saphyr::from_str(&text).with_context(|| format!("parsing {}", path.display()))
}

fn object<'a>(value: &'a Value, name: &str) -> Result<&'a Map<String, Value>> {
    value.get(name).and_then(Value::as_object).with_context(|| format!("no mapping named {name}"))
}

fn words(value: Option<&Value>) -> Vec<&str> {
    value.and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str).collect()
}

#[test]
fn every_file_is_listed() -> Result<()> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder())? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        if name.ends_with(".yaml") || name.ends_with(".yml") {
            found.push(name);
        }
    }
    found.sort();
    ensure!(found == FILES, "the folder compose/ holds {found:?}, and checked are {FILES:?}");
    Ok(())
}

#[test]
fn files_follow_the_schema() -> Result<()> {
    let text = std::fs::read_to_string(folder().join("schema/compose-spec.json"))?;
    let schema: Value = serde_json::from_str(&text)?;
    let validator = jsonschema::validator_for(&schema).map_err(|error| anyhow::anyhow!("{error}"))?;
    for name in FILES {
        let file = load(name)?;
        let errors: Vec<String> =
            validator.iter_errors(&file).map(|error| format!("{}: {error}", error.instance_path())).collect();
        ensure!(errors.is_empty(), "{name}: {errors:#?}");
        // The check itself is checked: an unknown key must be found.
        let mut wrong = file.clone();
        let service = object(&file, "services")?.keys().next().context("no service")?;
        wrong["services"][service]["imgae"] = Value::from("postgres");
        ensure!(!validator.is_valid(&wrong), "{name}: the schema let a misspelt key pass");
    }
    Ok(())
}

/// Pinned, checked for health, closed to other machines.
#[test]
fn services_keep_the_rules() -> Result<()> {
    for name in FILES {
        let file = load(name)?;
        let volumes = object(&file, "volumes")?;
        let services = object(&file, "services")?;
        for (service, body) in services {
            service_keeps_the_rules(service, body, services, volumes)
                .with_context(|| format!("{name}, service {service}"))?;
        }
    }
    Ok(())
}

fn service_keeps_the_rules(
    service: &str,
    body: &Value,
    services: &Map<String, Value>,
    volumes: &Map<String, Value>,
) -> Result<()> {
    let image = body["image"].as_str().context("no image")?;
    let (repository, tag) = image.rsplit_once(':').context("the image has no tag")?;
    ensure!(tag != "latest", "the tag {tag} is not pinned");
    ensure!(!repository.contains('.'), "{repository} names a registry host");
    if let Some(build) = body.get("build") {
        let context = folder().join(build["context"].as_str().context("no build context")?);
        let dockerfile = context.join(build["dockerfile"].as_str().context("no Dockerfile")?);
        ensure!(dockerfile.is_file(), "there is no {}", dockerfile.display());
    } else {
        ensure!(tag.starts_with(|first: char| first.is_ascii_digit()), "the tag {tag} is not a version");
    }
    ensure!(!words(body["healthcheck"].get("test")).is_empty(), "no health check");
    for port in words(body.get("ports")) {
        ensure!(port.starts_with("127.0.0.1:"), "port {port} is open to other machines");
    }
    for (needed, how) in body.get("depends_on").and_then(Value::as_object).into_iter().flatten() {
        ensure!(services.contains_key(needed) && needed != service, "depends on {needed}, which is not there");
        ensure!(how["condition"] == "service_healthy", "does not wait until {needed} is healthy");
    }
    for volume in words(body.get("volumes")) {
        let (source, _) = volume.split_once(':').context("an anonymous volume")?;
        if source.starts_with('.') {
            ensure!(folder().join(source).exists(), "there is no {source}");
        } else {
            ensure!(volumes.contains_key(source), "volume {source} is not declared");
        }
    }
    Ok(())
}
