// A worker that enrols speakers, so that the page answers meanwhile. It gets { module, model } once, then { recording } each time, and
// answers { facts } or { conditions }, or { error }.

import { Model } from "./library.js";

let model;

onmessage = ({ data }) => {
  try {
    if (data.module) {
      model = new Model(data.module, data.model);
      const { rate, hop, delay, latency, shortestEnrolment } = model;
      postMessage({ facts: { rate, hop, delay, latency, shortestEnrolment } });
    } else {
      postMessage({ conditions: model.enroll(data.recording) });
    }
  } catch (error) {
    postMessage({ error: error.message });
  }
};
