// The page of `simprompt serve`. Everything from outside is put in as text, never as HTML.
"use strict";

const at = (id) => document.getElementById(id);
const element = (tag, text = "", classes = "") => {
  const made = document.createElement(tag);
  made.textContent = text;
  if (classes) made.className = classes;
  return made;
};
const percent = (value) => `${(100 * value).toFixed(1)} %`;

let images = []; // {blob, label, url, answers, error}
let own = []; // the prompts' own names
let prompts = []; // names of the contenders, in the order of their colours
let limits = {}; // prompt -> its own threshold for "none of these"; 0: it has none
let matrices = {};
let turn = 0; // answers to an older question than the last are dropped

const names = () => at("names").value.split("\n").map((n) => n.trim()).filter(Boolean);
const colour = (prompt) => `var(--m${Math.max(0, prompts.indexOf(prompt)) % 6})`;

async function ask(path, options) {
  let response;
  try {
    response = await fetch(path, options);
  } catch {
    throw new Error("The server does not answer. Is it still running?");
  }
  const body = await response.json().catch(() => ({}));
  if (!response.ok) throw new Error(body.detail || `The server answered ${response.status}.`);
  return body;
}

function later(work, wait) {
  let timer;
  return () => {
    clearTimeout(timer);
    timer = setTimeout(work, wait);
  };
}

function add(files) {
  for (const file of files) {
    images.unshift({ blob: file, label: file.name || "pasted image", url: URL.createObjectURL(file) });
  }
  for (const old of images.splice(8)) URL.revokeObjectURL(old.url);
  predict();
}

async function predict() {
  if (!images.length) return;
  const mine = ++turn;
  at("status").textContent = "Looking ...";
  const chosen = names();
  const started = performance.now();
  await Promise.all(images.map(async (image) => {
    const form = new FormData();
    form.append("image", image.blob, image.label);
    for (const name of chosen) form.append("name", name);
    try {
      const body = await ask("predict", { method: "POST", body: form });
      const { answers, error } = body.images[0];
      if (mine === turn) Object.assign(image, { answers, error: error || "" });
    } catch (error) {
      if (mine === turn) Object.assign(image, { answers: null, error: error.message });
    }
  }));
  if (mine !== turn) return;
  const took = ((performance.now() - started) / 1000).toFixed(2);
  const first = images[0];
  at("status").textContent = first.error
    || `${first.label}: ${first.answers.map((a) => `${a.prompt} says ${best(a)}`).join(", ")}. ${took} s.`;
  show();
}

function best(answer) {
  const top = answer.choices[0];
  return none(answer) ? "none of these" : `${top.name}, ${percent(top.probability)}`;
}

// Thresholds were calibrated prompt by prompt; the slider puts one in the place of all of them.
const limit = (prompt) => (at("own-limits").checked ? limits[prompt] || 0 : at("unknown").value / 100);
const none = (answer) => answer.certainty !== null && answer.certainty < limit(answer.prompt);

function showLimits() {
  const said = prompts.filter((prompt) => limits[prompt]).map((prompt) => `${prompt} ${percent(limits[prompt])}`);
  const others = said.length && names().join("\n") !== own.join("\n") ? "; images of other names are refused more often" : "";
  at("unknown-value").textContent = at("own-limits").checked
    ? (said.join(", ") || "no prompt has one") + others : `${at("unknown").value} %`;
}

function show() {
  const list = images.map((image) => {
    const row = element("article", "", "image");
    const left = element("div");
    const picture = element("img");
    picture.src = image.url;
    picture.alt = image.label;
    picture.addEventListener("error", () => { picture.hidden = true; });
    left.append(picture, element("p", image.label, "name"));
    const right = element("div", "", "answers");
    if (image.error) right.append(element("p", image.error, "error"));
    for (const answer of image.answers || []) right.append(table(answer));
    row.append(left, right);
    return row;
  });
  at("results").replaceChildren(...list);
}

function table(answer) {
  const made = element("table");
  made.append(element("caption", answer.prompt));
  const body = element("tbody");
  const refused = none(answer);
  if (refused) {
    const row = element("tr");
    row.append(element("td", "none of these", "first"), element("td"));
    body.append(row);
  }
  answer.choices.slice(0, 5).forEach((choice, place) => {
    const row = element("tr", "", refused ? "none" : place ? "" : "first");
    const cell = element("td", choice.name);
    const bar = element("span", "", "bar");
    bar.style.width = `${100 * choice.probability}%`;
    bar.style.setProperty("--c", colour(answer.prompt));
    bar.setAttribute("aria-hidden", "true");
    cell.append(bar);
    row.append(cell, element("td", percent(choice.probability)));
    body.append(row);
  });
  made.append(body);
  return made;
}

async function compare() {
  const chosen = names().slice(0, 40);
  if (!chosen.length) return at("map").replaceChildren();
  try {
    const body = await ask("similarities", {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify({ names: chosen }),
    });
    matrices = body;
    showMap();
  } catch (error) {
    at("map").replaceChildren(element("p", error.message, "error"));
  }
}

function showMap() {
  const matrix = (matrices.matrices || {})[at("which").value];
  if (!matrix) return at("map").replaceChildren(element("p", "No map for this one.", "soft"));
  const list = matrices.names;
  const off = matrix.flatMap((row, i) => row.filter((_, j) => i !== j));
  const low = Math.min(...off), high = Math.max(...off);
  const made = element("table");
  const head = element("tr");
  head.append(element("td"));
  for (const name of list) {
    const cell = element("th");
    cell.scope = "col";
    cell.append(element("span", name));
    head.append(cell);
  }
  const top = element("thead");
  top.append(head);
  const body = element("tbody");
  matrix.forEach((row, i) => {
    const line = element("tr");
    const name = element("th", list[i]);
    name.scope = "row";
    line.append(name);
    row.forEach((value, j) => {
      const cell = element("td", i === j ? "" : Math.round(100 * value));
      const part = high > low ? (value - low) / (high - low) : 0;
      if (i !== j) cell.style.backgroundColor = `rgba(var(--heat), ${(0.5 * part).toFixed(3)})`;
      cell.title = `${list[i]}, ${list[j]}: ${value.toFixed(3)}`;
      line.append(cell);
    });
    body.append(line);
  });
  made.append(top, body);
  at("map").replaceChildren(made);
}

let stream = null;
function closeCamera() {
  if (stream) for (const track of stream.getTracks()) track.stop();
  stream = null;
  at("view").hidden = true;
  at("camera").focus();
}

async function openCamera() {
  try {
    stream = await navigator.mediaDevices.getUserMedia({ video: { facingMode: "environment" } });
  } catch {
    at("status").textContent = "There is no camera that this page may use.";
    return;
  }
  at("video").srcObject = stream;
  at("view").hidden = false;
  at("snap").focus();
}

function snap() {
  const video = at("video");
  const canvas = element("canvas");
  canvas.width = video.videoWidth;
  canvas.height = video.videoHeight;
  canvas.getContext("2d").drawImage(video, 0, 0);
  canvas.toBlob((blob) => add([new File([blob], "camera.jpg", { type: "image/jpeg" })]), "image/jpeg", 0.92);
}

function listen() {
  const drop = at("drop");
  for (const kind of ["dragenter", "dragover"]) {
    document.addEventListener(kind, (event) => { event.preventDefault(); drop.classList.add("over"); });
  }
  for (const kind of ["dragleave", "drop"]) {
    document.addEventListener(kind, () => drop.classList.remove("over"));
  }
  document.addEventListener("drop", (event) => {
    event.preventDefault();
    add(event.dataTransfer.files);
  });
  document.addEventListener("paste", (event) => {
    const files = [...(event.clipboardData ? event.clipboardData.files : [])];
    if (files.length) { event.preventDefault(); add(files); }
  });
  const files = at("files");
  const button = document.querySelector("label.button");
  files.addEventListener("focus", () => button.classList.add("focus"));
  files.addEventListener("blur", () => button.classList.remove("focus"));
  files.addEventListener("change", () => { add(files.files); files.value = ""; });
  at("camera").addEventListener("click", openCamera);
  at("snap").addEventListener("click", snap);
  at("close").addEventListener("click", closeCamera);
  document.addEventListener("keydown", (event) => { if (event.key === "Escape" && stream) closeCamera(); });
  const asked = later(() => { showLimits(); predict(); compare(); }, 400);
  at("names").addEventListener("input", asked);
  at("reset").addEventListener("click", () => { at("names").value = own.join("\n"); asked(); });
  at("which").addEventListener("change", showMap);
  at("unknown").addEventListener("input", () => {
    at("own-limits").checked = false;
    showLimits();
    show();
  });
  at("own-limits").addEventListener("change", () => { showLimits(); show(); });
}

async function begin() {
  listen();
  try {
    const info = await ask("info");
    own = info.names;
    prompts = info.prompts.map((one) => one.name);
    at("names").value = own.join("\n");
    for (const name of prompts) {
      const option = element("option", name);
      option.value = name;
      at("which").append(option);
    }
    limits = Object.fromEntries(info.prompts.map((one) => [one.name, one.unknown]));
    showLimits();
    if (prompts.length > 1) at("which").value = prompts[prompts.length - 1];
    const models = [...new Set(info.prompts.map((one) => one.model))].join(", ");
    at("about").textContent = `simprompt ${info.version}, ${models}: ${prompts.join(", ")}`;
    compare();
  } catch (error) {
    at("status").textContent = error.message;
  }
}

begin();
