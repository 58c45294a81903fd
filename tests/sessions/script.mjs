// The language of the scripts (README.md has it for readers): parse() turns text into steps, runScript() walks them over a backend.
import { readFileSync } from 'node:fs';

const options = JSON.parse(readFileSync(new URL('../../data/options.json', import.meta.url), 'utf8'));
const generateOptions = new Map(options.generate.map((row) => [row.name, row]));

// Pages of freed memory go back to the system late and in part; a model that stays each time is far more after ten times.
const RETURN_SLACK_BYTES = 250e6;

// Logits around 17, of a model of 30 layers, against float32: half-precision keys and values, 16-bit activations.
const LOGIT_TOLERANCE = 0.05;

/** A script cannot run here: a model is missing. */
export class Skip extends Error {}
/** What was expected did not come. */
class Unexpected extends Error {}

/** Steps {verb, rest, line}; a repeat has {times, body} too. */
export function parse(text) {
  const blocks = [{ body: [] }];
  for (const [i, raw] of text.split('\n').entries()) {
    const words = /^(\S+)\s*(.*)$/.exec(raw.trim());
    if (!words || words[1].startsWith('#')) continue;
    const step = { verb: words[1], rest: words[2], line: i + 1 };
    if (step.verb === 'end') {
      if (blocks.length === 1) throw new Unexpected(`line ${step.line}: end without repeat`);
      blocks.pop();
      continue;
    }
    blocks.at(-1).body.push(step);
    if (step.verb !== 'repeat') continue;
    Object.assign(step, { times: wholeNumber(step.rest), body: [] });
    blocks.push(step);
  }
  if (blocks.length > 1) throw new Unexpected(`line ${blocks.at(-1).line}: repeat without end`);
  return blocks[0].body;
}

/** `find(name)` → {place, file} of a model, or throws Skip. Throws with the line that failed. */
export async function runScript(steps, backend, find) {
  const run = new Run(backend, find);
  await run.block(steps);
  run.errorWasExpected();
}

class Run {
  constructor(backend, find) {
    this.backend = backend;
    this.find = find;
    this.engine = {};
    this.options = {};
    this.messages = [];
    this.prompt = null; // {prompt} or {ids}; null when the conversation is asked
    this.request = null;
    this.pieces = [];
    this.last = {}; // the newest answer, or error
    this.answers = new Map();
    this.memories = new Map();
  }

  async block(steps) {
    for (const step of steps) {
      if (step.verb === 'repeat') {
        for (let i = 0; i < step.times; i++) await this.block(step.body);
        continue;
      }
      try {
        await this.step(step);
      } catch (error) {
        if (!(error instanceof Skip) && !/^line \d/.test(error.message)) error.message = `line ${step.line}: ${step.verb} ${step.rest}: ${error.message}`;
        throw error;
      }
    }
  }

  async step({ verb, rest, line }) {
    if (verb === 'expect') return this.expect(rest, line);
    this.errorWasExpected();
    this.line = line;
    if (generateOptions.has(verb)) return this.setOption(verb, rest);
    if (!Object.hasOwn(verbs, verb)) throw new Unexpected('no such verb');
    return verbs[verb].call(this, rest);
  }

  /** What the backend answers; null after an error, which a next `expect error` must name. */
  async ask(request) {
    const answer = await this.backend.ask(request);
    if (!answer.error) return answer;
    this.last = { error: answer.error, line: this.line };
    return null;
  }

  errorWasExpected() {
    const { error, line } = this.last;
    if (error && !this.last.isExpected) throw new Unexpected(`line ${line}: ${error.code}: ${error.message}`);
  }

  setOption(name, rest) {
    const value = literal(rest);
    this.options[name] = generateOptions.get(name)?.type === 'strings' && !Array.isArray(value) ? [value] : value;
  }

  async start(request) {
    this.last = {};
    const isStarted = await this.ask({ op: 'start', request });
    if (!isStarted) return false;
    this.request = request;
    this.pieces = [];
    return true;
  }

  /** Takes the events of a run or a cancel; the answer is over when "done" is among them. */
  take(answer) {
    if (!answer) return;
    for (const event of answer.events) {
      if (event.type === 'token') this.pieces.push(event);
      if (event.type !== 'done') continue;
      this.last = event;
      // What streamed is what the answer says in the end: on each backend, each time.
      same(this.pieces.map((piece) => piece.text).join(''), event.text, 'the streamed text');
      same(this.pieces.filter((piece) => piece.id !== null).map((piece) => piece.id), event.ids, 'the streamed ids');
      same(event.usage.completion_tokens, event.ids.length, 'completion_tokens');
      if (this.request.messages === this.messages) this.messages = [...this.messages, { role: 'assistant', content: event.text }];
    }
  }

  async expect(rest, line) {
    const [, what, more] = /^(\S+)\s*(.*)$/.exec(rest) ?? [];
    if (['error', 'message', 'hint'].includes(what)) {
      const { error } = this.last;
      if (!error) throw new Unexpected('there was no error');
      this.last.isExpected = true;
      if (what === 'error') return same(error.code, more, 'the error');
      return compareText(error[what], more, `the ${what}`);
    }
    this.errorWasExpected();
    const { ids, text, usage } = this.last;
    const answered = (value) => {
      if (value === undefined) throw new Unexpected('there is no answer yet');
      return value;
    };
    switch (what) {
      case 'ids': {
        const begins = more.startsWith('begin ');
        const wanted = (begins ? more.slice(6) : more).split(/\s+/).filter(Boolean).map(wholeNumber);
        return same(begins ? answered(ids).slice(0, wanted.length) : answered(ids), wanted, 'the ids');
      }
      case 'top': {
        // The first token's likeliest ids, id:logit each; needs top_logits.
        const wanted = more.split(/\s+/).map((pair) => pair.split(':').map(Number));
        const got = answered(this.pieces[0]?.top);
        same(got.map(({ id }) => id), wanted.map(([id]) => id), 'the likeliest ids');
        for (const [i, [id, logit]] of wanted.entries()) {
          if (!(Math.abs(got[i].logit - logit) <= LOGIT_TOLERANCE)) throw new Unexpected(`the logit of ${id} is ${got[i].logit}, not ${logit} ± ${LOGIT_TOLERANCE}`);
        }
        return;
      }
      case 'text':
        return compareText(answered(text), more, 'the text');
      case 'finish':
        return same(answered(this.last.finish_reason), more, 'the finish');
      case 'prompt':
      case 'cached':
        return compareNumber(answered(usage)[`${what}_tokens`], more, `the ${what} tokens`);
      case 'guessed':
        return compareNumber(answered(usage).guessed_tokens, more, 'the guessed tokens');
      case 'right':
        return compareNumber(answered(usage).guessed_right, more, 'the guesses that were right');
      case 'tokens':
        return compareNumber(answered(ids).length, more, 'the tokens');
      case 'same':
      case 'other': {
        const name = more.split(/\s+/)[1]; // same as NAME, other than NAME
        const before = this.answers.get(name);
        if (!before) throw new Unexpected(`no answer was remembered as "${name}"`);
        if (what === 'same') return same(answered(ids), before.ids, 'the ids');
        if (JSON.stringify(answered(ids)) === JSON.stringify(before.ids)) throw new Unexpected('the ids are the same');
        return;
      }
      case 'held':
      case 'context': {
        const info = await this.backend.ask({ op: 'info' });
        return compareNumber(what === 'held' ? info.n_tokens : info.context, more, what);
      }
      case 'memory':
        return more === 'returns' ? this.memoryReturns(line) : this.memoryIs(more);
      default:
        throw new Unexpected('nothing of this name can be expected');
    }
  }

  async memoryIs(more) {
    const [, tag, comparison] = /^(\S+)\s+(.*)$/.exec(more) ?? [];
    const books = await this.backend.ask({ op: 'memory' });
    compareNumber(tag === 'all' ? books.current : books.by_tag[tag]?.current, comparison, `the bytes of ${tag}`);
  }

  /** The first time a line is passed it notes the bytes; each later time they must be as they were. */
  async memoryReturns(line) {
    const { current, wasm_bytes: wasm = 0 } = await this.backend.ask({ op: 'memory' });
    const resident = await this.backend.bytes();
    const before = this.memories.get(line);
    if (!before) return void this.memories.set(line, { current, wasm, resident });
    same(current, before.current, 'the bytes in the books');
    same(wasm, before.wasm, 'the bytes of the WebAssembly memory');
    if (resident !== null && resident > before.resident + RETURN_SLACK_BYTES) {
      throw new Unexpected(`the process holds ${resident} bytes, it held ${before.resident}`);
    }
  }
}

const verbs = {
  async load(rest) {
    const [name, ...pairs] = rest.split(/\s+/);
    const { place, file } = this.find(name);
    const options = Object.fromEntries(pairs.map((pair) => pair.split('=')).map(([key, value]) => [key, literal(value)]));
    this.last = {};
    await this.ask({ op: 'load', model: this.backend.find(place, file), engine: this.engine, options });
  },
  async dispose() {
    await this.ask({ op: 'dispose' });
  },

  engine(rest) {
    const [name, value] = rest.split(/\s+/);
    this.engine = value === undefined ? {} : { ...this.engine, [name]: literal(value) };
  },
  option(rest) {
    const [, name, value] = /^(\S+)\s+(.*)$/.exec(rest);
    this.setOption(name, value);
  },
  defaults() {
    this.options = {};
  },

  raw(rest) {
    this.prompt = { prompt: words(rest) };
  },
  ids(rest) {
    this.prompt = { ids: rest.split(/\s+/).filter(Boolean).map(literal) };
  },
  user: say('user'),
  system: say('system'),
  assistant: say('assistant'),
  new() {
    this.messages = [];
    this.prompt = null;
  },

  async start() {
    await this.start({ ...(this.prompt ?? { messages: this.messages }), ...this.options });
  },
  async finish() {
    this.take(await this.ask({ op: 'run' }));
  },
  async cancel() {
    this.take(await this.ask({ op: 'cancel' }));
  },
  async go(rest) {
    await this.step({ verb: 'start', rest: '', line: this.line });
    if (this.last.error) return;
    const stopAfter = /^stop-after (\d+)$/.exec(rest);
    if (rest && !stopAfter) throw new Unexpected('go, or go stop-after N');
    if (!stopAfter) return verbs.finish.call(this);
    this.take(await this.ask({ op: 'run', tokens: Number(stopAfter[1]) }));
    return verbs.cancel.call(this);
  },
  async again() {
    if (await this.start({ ...this.request })) await verbs.finish.call(this);
  },
  async reset() {
    await this.ask({ op: 'reset' });
  },
  remember(rest) {
    this.answers.set(rest, this.last);
  },
};

function say(role) {
  return function (rest) {
    this.messages = [...this.messages, { role, content: words(rest) }];
    this.prompt = null;
  };
}

/** JSON where it is JSON, else the words as they stand. */
function literal(text) {
  try {
    return JSON.parse(text);
  } catch {
    return text;
  }
}

/** Text as it stands; in quotes it is a JSON string. */
function words(text) {
  return /^".*"$/.test(text) ? JSON.parse(text) : text;
}

function wholeNumber(text) {
  const value = Number(text.replaceAll('_', ''));
  if (text === '' || !Number.isInteger(value)) throw new Unexpected(`"${text}" is not a whole number`);
  return value;
}

function same(found, wanted, what) {
  if (JSON.stringify(found) === JSON.stringify(wanted)) return;
  throw new Unexpected(`${what}: found ${JSON.stringify(found)}, wanted ${JSON.stringify(wanted)}`);
}

function compareNumber(found, comparison, what) {
  const [, sign = '=', text] = /^(<=|>=|<|>|=)?\s*(\S+)$/.exec(comparison) ?? [];
  const wanted = wholeNumber(text ?? '');
  const holds = { '=': found === wanted, '<': found < wanted, '>': found > wanted, '<=': found <= wanted, '>=': found >= wanted }[sign];
  if (!holds) throw new Unexpected(`${what}: found ${found}, wanted ${sign} ${wanted}`);
}

function compareText(found, comparison, what) {
  const [, how, text] = /^(?:(has|lacks)\s+)?(.*)$/.exec(comparison);
  const wanted = words(text);
  const holds = how === 'has' ? found.includes(wanted) : how === 'lacks' ? !found.includes(wanted) : found === wanted;
  if (!holds) throw new Unexpected(`${what}: found ${JSON.stringify(found)}, wanted ${how ? `${how} ` : ''}${JSON.stringify(wanted)}`);
}
