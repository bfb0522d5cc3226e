import type { Device } from '../config/common.js';
import type { StageContext } from '../runs/events.js';
import { chooseDevice } from '../runtime/choose-device.js';
import { Runtime } from '../runtime/runtime.js';

/**
 * The engine on the device of a config; where `auto` left the choice open, a note says which it is.
 *
 * @throws UserError `machine.device` when the device does not compute here
 */
export async function openRuntime(
  config: { readonly device: Device | 'auto'; readonly threads: number },
  context: Pick<StageContext, 'onEvent'>,
): Promise<Runtime> {
  const { device, why } = await chooseDevice(config.device);
  if (why !== undefined)
    context.onEvent({ type: 'note', code: 'device.auto', message: `Computing on ${device}: ${why}.` });
  return new Runtime({ device, threads: config.threads });
}
