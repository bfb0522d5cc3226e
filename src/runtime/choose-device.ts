import { readdirSync } from 'node:fs';
import type { Device } from '../config/common.js';
import { machineError, type UserError } from '../errors.js';
import { tensor } from '../graph/tensor.js';
import { add } from '../ops/build.js';
import { newGraph } from '../ops/registry.js';
import { Runtime } from './runtime.js';

/** A device that computes, and why it was taken where that was left open. */
export interface ChosenDevice {
  readonly device: Device;
  readonly why?: string;
}

const FIXES: Readonly<Record<Device, string>> = {
  cpu: 'Install the packages again with npm ci.',
  webgpu: 'Install the driver of the GPU (on Linux its Vulkan driver and libvulkan1), or compute with --device cpu.',
  cuda:
    'Install CUDA 12 with cuDNN 9, and onnxruntime-node with its CUDA libraries (docs/cli.md, Devices), ' +
    'or compute with --device webgpu or cpu.',
  coreml: 'It is part of macOS; elsewhere compute with --device webgpu or cpu.',
  dml: 'It is part of Windows; elsewhere compute with --device webgpu or cpu.',
};

/**
 * The device that was asked for, after it has computed something; for `auto` the fastest that can.
 *
 * @throws UserError `machine.device` when the device asked for does not compute here
 */
export async function chooseDevice(asked: Device | 'auto'): Promise<ChosenDevice> {
  if (asked === 'cpu') return { device: asked };
  if (asked !== 'auto') {
    const fault = await faultOf(asked);
    if (fault !== undefined) throw noDevice(asked, fault);
    return { device: asked };
  }
  const { gpu, absent } = graphicsProcessor();
  if (gpu === undefined) return { device: 'cpu', why: absent };
  const faults: string[] = [];
  for (const device of gpu) {
    const fault = await faultOf(device);
    if (fault === undefined) return { device, why: 'it computes here and is faster than the processor' };
    faults.push(`${device}: ${fault}`);
  }
  return { device: 'cpu', why: `no GPU can be used (${faults.join('; ')})` };
}

/** Devices to try for a GPU of this machine. On Linux a driver in software would be slower than the processor itself. */
function graphicsProcessor(): { gpu?: readonly Device[]; absent: string } {
  if (process.platform !== 'linux') return { gpu: ['webgpu'], absent: '' };
  const names = (folder: string): string[] => {
    try {
      return readdirSync(folder);
    } catch {
      return [];
    }
  };
  const nvidia = names('/dev').some((name) => /^nvidia\d+$/.test(name));
  if (nvidia) return { gpu: ['cuda', 'webgpu'], absent: '' };
  if (names('/dev/dri').some((name) => name.startsWith('renderD'))) return { gpu: ['webgpu'], absent: '' };
  return { absent: 'this machine shows no GPU (neither /dev/dri/renderD* nor /dev/nvidia*)' };
}

/** Why a device cannot compute, in the runtime's words. */
async function faultOf(device: Device): Promise<string | undefined> {
  const runtime = new Runtime({ device, threads: 1 });
  try {
    const graph = newGraph();
    graph.output('y', add(graph.input('x', 'float32', [2]), 1));
    const program = await runtime.compile(graph);
    const { y } = await program.run({ x: tensor('float32', [2], [1, 2]) });
    return y!.data.join() === '2,3' ? undefined : `1 + 1 and 2 + 1 gave ${y!.data.join(' and ')}`;
  } catch (error) {
    return error instanceof Error ? error.message.split('\n')[0]! : String(error);
  } finally {
    await runtime.close();
  }
}

const noDevice = (device: Device, fault: string): UserError =>
  machineError({
    code: 'machine.device',
    message: `The device ${device} does not compute on this machine.`,
    where: fault,
    fix: FIXES[device],
  });
