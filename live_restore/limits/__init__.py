"""The limits room: pushes a model until it breaks, and says where.

Receives a model package and high-light images; hands on curves over light and blur, break points with their spread, a
report, and `limits` for the package's facts. It does not know training, and nothing of it runs while a microscope runs.

What stands under ``limits`` of a package, every entry a number, those absent that were not found within what was tested
(``photons`` per pixel that one pixel in a thousand exceeds; ``snr`` as the live trust check tells it, at that light):

============================================== ==================================================================
``best_gain_db``                               largest mean gain in PSNR over the best Gaussian filter
``never_helps``                                1 where it helps at no light that was tested; else absent
``photons_low``, ``snr_low``                   below, restoring no longer helps: over the best Gaussian filter it gains
                                               less than 0.25 dB PSNR, or nothing in SSIM
``photons_high``, ``snr_high``                 above, it no longer helps
``photons_invents``, ``snr_invents``           below, false structure covers more than 0.5 % of the area
``always_invents``                             1 where it does at any light that was tested; else absent
``photons_resolves``, ``snr_resolves``         below, detail must be twice as coarse as at high light to be resolved
``photons_smooths``, ``snr_smooths``           above, raw contradicts the restored image on more than 0.5 % of the area
``resolution_px``, ``resolution_um``           period of the finest detail that is resolved at high light
``blur_px_high``, ``blur_um_high``             sigma of further blur that it bears
``blur_photons``                               the light at which blur was judged
``…_from``, ``…_to``                           spread over images of ``photons_low``, ``photons_invents``,
                                               ``photons_resolves`` and ``blur_px_high``: 90 % of the bootstrap
``tested_photons_from``, ``tested_photons_to`` light that was tested
``tested_blur_px_to``                          blur that was tested
``tested_images``                              how many images
============================================== ==================================================================
"""
