// Shared by the cases, in Node and in a page.

export const PROMPT = [1, 5, 9, 2, 7];

export async function caught(work) {
  try {
    await work();
  } catch (error) {
    return error;
  }
  return { code: 'nothing was thrown' };
}

let nTargets = 0;

/** Where a page quantises to: names in the site's storage. */
export const pageTools = {
  scratch: (name = `target-${Date.now()}-${nTargets++}`) => name,
  async textOf(folder, file) {
    return (await (await folder.getFileHandle(file)).getFile()).text();
  },
  async exists(name) {
    const models = await (await navigator.storage.getDirectory()).getDirectoryHandle('subbyte-models', { create: true });
    return models.getDirectoryHandle(name).then(() => true, () => false);
  },
};

/** Runs a case with `check`; returns what did not hold. */
export async function run(which, t) {
  const problems = [];
  const check = {
    equal: (a, b, note = '') => a === b || problems.push(`${note} ${JSON.stringify(a)} is not ${JSON.stringify(b)}`.trim()),
    ok: (value, note) => value || problems.push(`not true: ${note}`),
  };
  try {
    await which({ ...t, check });
  } catch (error) {
    problems.push(`threw ${error?.code ?? ''} ${error?.stack ?? error}`);
  }
  return problems;
}
