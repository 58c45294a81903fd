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
