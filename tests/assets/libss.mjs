// libss.wasm in node: libss.mjs LIBRARY MODEL ENROLMENT MIXTURE OUT CHUNK; audio in raw float32.
import fs from "fs";

const [library, model, enrolment, mixture, out, chunk] = process.argv.slice(2);
const module = new WebAssembly.Module(fs.readFileSync(library));
if (WebAssembly.Module.imports(module).length) throw new Error("it imports something");
const ss = new WebAssembly.Instance(module, {}).exports;
ss._initialize();

const bytes = (at, n) => new Uint8Array(ss.memory.buffer, at, n); // memory may grow with every call: views are made anew
const floats = (at, n) => new Float32Array(ss.memory.buffer, at, n);
function place(data) {
  const at = ss.malloc(data.length);
  bytes(at, data.length).set(data);
  return at;
}
function text(at) {
  const all = new Uint8Array(ss.memory.buffer);
  return new TextDecoder().decode(all.slice(at, all.indexOf(0, at)));
}

const file = fs.readFileSync(model);
const loaded = ss.ss_load_memory(place(file), file.length);
if (!loaded) throw new Error(text(ss.ss_error()));
const recording = fs.readFileSync(enrolment), voice = ss.malloc(4 * ss.ss_n_conditions(loaded));
if (ss.ss_enroll(loaded, place(recording), recording.length / 4, voice)) throw new Error(text(ss.ss_error()));
const stream = ss.ss_stream_new(loaded, voice), heard = fs.readFileSync(mixture), step = 4 * Number(chunk), parts = [];
const given = ss.malloc(step), room = ss.malloc(step + 4 * (ss.ss_hop(loaded) + ss.ss_delay(loaded)));
const keep = (n) => parts.push(Buffer.from(bytes(room, 4 * n).slice()));
for (let at = 0; at < heard.length; at += step) {
  const block = heard.subarray(at, at + step);
  bytes(given, block.length).set(block);
  keep(ss.ss_stream_process(stream, given, block.length / 4, room));
}
keep(ss.ss_stream_flush(stream, room));
fs.writeFileSync(out, Buffer.concat(parts));
console.log(text(ss.ss_kernel(loaded)), floats(room, 1).length);
