// A contender that runs as a process of its own and speaks JSON lines: it says {ready, load_ms, …} when the model is loaded, then answers
//   {"prompt": text, "n": N}  with {text, first_token_ms}   (since the process began)
//   {"ids": [...], "n": N}    with {n_prompt, prefill_ms, prefill_cpu_ms, n_decode, decode_ms, decode_cpu_ms}
//   {"tokenize": text}, {"detokenize": ids}  with {ids}, {text}   (llama.cpp only)
import { spawn } from 'node:child_process';
import readline from 'node:readline';

import { peak_resident_mib } from '../renderer.mjs';

export async function talk(command, args, options = {}) {
  const child = spawn(command, args, { stdio: ['pipe', 'pipe', 'pipe'], ...options });
  let complaints = '', ended = null;
  child.stderr.on('data', (d) => { complaints = (complaints + d).slice(-2000); });
  const waiting = [], spare = [];
  readline.createInterface({ input: child.stdout }).on('line', (line) => {
    if (!line.startsWith('{')) return; // libraries like to say hello
    const answer = JSON.parse(line);
    waiting.length ? waiting.shift().resolve(answer) : spare.push(answer);
  });
  const fail = (e) => { ended = e; for (const w of waiting.splice(0)) w.reject(e); };
  child.on('error', fail);
  child.stdin.on('error', fail); // it has died: EPIPE
  child.on('close', (code) => fail(new Error(`${command} ended with ${code}\n${complaints}`)));
  const next = () => new Promise((resolve, reject) => (spare.length ? resolve(spare.shift()) : ended ? reject(ended) : waiting.push({ resolve, reject })));
  const ask = (request) => { if (ended) return Promise.reject(ended); child.stdin.write(JSON.stringify(request) + '\n'); return next().then((a) => { if (a.error) throw new Error(a.error); return a; }); };
  return { pid: child.pid, ready: await next(), ask, async stop() { if (ended) return; const done = new Promise((r) => child.on('close', r)); child.stdin.end(); await done; } };
}

/** Starts `command` and takes the proof's answer: the common start of every process contender. */
export async function start_process(command, args, proof, options) {
  const peer = await talk(command, args, options);
  const answer = await peer.ask({ prompt: proof.prompt, n: proof.n });
  return {
    load_ms: peer.ready.load_ms, first_token_ms: answer.first_token_ms, text: answer.text, about: peer.ready.about,
    complete: ({ ids }, n) => peer.ask({ ids, n }),
    tokenize: async (text) => (await peer.ask({ tokenize: text })).ids,
    detokenize: async (ids) => (await peer.ask({ detokenize: ids })).text,
    peak_mib: () => peak_resident_mib(peer.pid), peak_how: 'the largest resident set of the process (VmHWM), mapped files included',
    stop: peer.stop,
  };
}
