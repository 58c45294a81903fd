// A GPU for Node's tests on machines without one: SwiftShader, which comes with Debian's chromium.
import { execFileSync } from 'node:child_process';
import { existsSync } from 'node:fs';

/** There is no driver to run on: tests skip and count it, `./dev` says how to get it. */
export class GpuMissing extends Error {}

/** Drivers in the order in which they are named to the Vulkan loader. */
function swiftShader() {
  for (const name of ['chromium-common', 'chromium']) {
    try {
      const files = execFileSync('dpkg', ['-L', name], { encoding: 'utf8', stdio: ['ignore', 'pipe', 'ignore'] }).split('\n');
      const found = files.find((file) => file.endsWith('vk_swiftshader_icd.json'));
      if (found && existsSync(found)) return found;
    } catch {
      // the package is not here
    }
  }
  return null;
}

const hasGpu = () => existsSync('/dev/dri') || existsSync('/dev/nvidiactl');

/** Lets Dawn find a driver, before anything opens a GPU. `always` takes SwiftShader also where there is a GPU. Whoever has named a driver is
 * left alone. */
export function prepareNodeGpu({ always = false } = {}) {
  if (process.env.VK_ICD_FILENAMES || process.env.VK_DRIVER_FILES) return;
  if (!always && hasGpu()) return;
  const driver = swiftShader();
  if (!driver) throw new GpuMissing('there is no GPU, and no SwiftShader in its place: install the package chromium');
  process.env.VK_ICD_FILENAMES = driver;
  process.env.NODEVICE_SELECT = '1'; // a layer of Mesa's that complains where there is no display
}
