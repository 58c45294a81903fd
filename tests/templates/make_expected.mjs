// Renders every template of this folder with every conversation by npm @huggingface/jinja and writes expected.json:
// {"template": {"conversation": "text" or {"raised": true}}}. core/input/chat_template_test.cc must agree with all of it.
// usage: npm install --prefix DIR @huggingface/jinja@0.5.11 && node make_expected.mjs DIR
import { readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join, resolve } from "node:path";
import { pathToFileURL } from "node:url";

const here = import.meta.dirname;
const { Interpreter, Template } = await import(pathToFileURL(join(resolve(process.argv[2]), "node_modules/@huggingface/jinja/dist/index.js")));
const conversations = JSON.parse(readFileSync(join(here, "conversations.json"), "utf8"));

// strftime_now reads the clock; here it reads the conversation's date, as it does in the core.
const RealDate = Date;
let day = "2024-07-26";
globalThis.Date = class extends RealDate {
  constructor() {
    super(...day.split("-").map((part, i) => Number(part) - (i === 1)));
  }
};

// Where it gives what Jinja2 would not, it is set right: a text plus a list or a dictionary is an error ("[object Map]" otherwise), and no
// text equals a truth value ("" == false otherwise).
const binary = Interpreter.prototype.evaluateBinaryExpression;
Interpreter.prototype.evaluateBinaryExpression = function (node, environment) {
  if (node.operator.value === "+") {
    const types = [node.left, node.right].map((side) => this.evaluate(side, environment).type);
    if (types.includes("StringValue") && types.some((type) => type === "ArrayValue" || type === "ObjectValue")) {
      throw new Error("can only concatenate text to text");
    }
  }
  if (node.operator.value === "==" || node.operator.value === "!=") {
    const [left, right] = [node.left, node.right].map((side) => this.evaluate(side, environment));
    if ((left.type === "StringValue") !== (right.type === "StringValue")) {
      return this.evaluate({ type: "Identifier", value: node.operator.value === "!=" ? "true" : "false" }, environment);
    }
  }
  return binary.call(this, node, environment);
};

// What it lacks, and Jinja2 and we have: the filter reject, trim of an undefined value, string of a dictionary.
const lacking = new Set([
  "llama3.1.jinja built-in tools", "llama3.2.jinja built-in tools", "llama3.jinja a call without content",
  "mistral_v3.jinja a result that is an object",
]);

const expected = {};
for (const file of readdirSync(here).filter((name) => name.endsWith(".jinja")).sort()) {
  const template = new Template(readFileSync(join(here, file), "utf8"));
  const rendered = (expected[file] = {});
  for (const { name, context } of conversations) {
    if (lacking.has(`${file} ${name}`)) continue;
    day = context.date ?? "2024-07-26";
    try {
      rendered[name] = template.render(context);
    } catch {
      rendered[name] = { raised: true };
    }
  }
}
writeFileSync(join(here, "expected.json"), JSON.stringify(expected, null, 1) + "\n");
