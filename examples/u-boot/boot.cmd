# Chooses the slot that boots, for devices with [boot] control = "uboot". See README.md beside this file.
#
#   BOOT_ORDER       the slots that may boot, first one first. The last one is the confirmed one; one before
#                    it is on trial.
#   BOOT_<slot>_LEFT the attempts that are left, in hexadecimal; 0: this slot must not boot.
#
# Only an attempt of a slot on trial is counted, and the count is stored before the slot boots: where it
# cannot be stored, the slot is not tried. The confirmed slot is never counted, so that no power flicker
# uses it up.
#
# The board says in variables of its own how it starts something, which does not return when it works:
#
#   rekindle_boot    starts the slot ${rekindle_slot}, and tells the kernel: rekindle.slot=${rekindle_slot}
#   rekindle_recover starts the recovery environment; where there is none, leave it out

setenv rk_confirmed
for slot in ${BOOT_ORDER}; do
    setenv rk_confirmed ${slot}
done

for slot in ${BOOT_ORDER}; do
    # The value of the variable whose name has the slot in it.
    setenv rk_get "setenv rk_left \${BOOT_${slot}_LEFT}"
    setenv rk_left
    run rk_get
    setenv rekindle_slot ${slot}
    setenv rk_start no
    if test "${slot}" = "${rk_confirmed}"; then
        if test 0x0${rk_left} -gt 0; then
            echo "rekindle: slot ${slot}, confirmed"
            setenv rk_start yes
        fi
    elif test 0x0${rk_left} -gt 0; then
        setexpr BOOT_${slot}_LEFT 0x${rk_left} - 1
        echo "rekindle: slot ${slot}, on trial, attempts left: ${rk_left}"
        # What only this script needs is not stored.
        setenv rk_get
        setenv rk_left
        setenv rk_start
        if saveenv; then
            setenv rk_start yes
        else
            echo "rekindle: the attempt cannot be stored, slot ${slot} is not tried"
        fi
    fi
    if test "${rk_start}" = yes; then
        run rekindle_boot
        echo "rekindle: slot ${slot} does not start"
        if test "${slot}" != "${rk_confirmed}"; then
            setenv BOOT_${slot}_LEFT 0
            setenv rk_start
            saveenv
        fi
    fi
done

echo "rekindle: no slot boots"
if test -n "${rekindle_recover}"; then
    echo "rekindle: recovery"
    run rekindle_recover
fi
echo "rekindle: there is nothing more to try; connect a console"
